package llm

import (
	"io"
	"regexp"
	"strings"
	"sync"
)

var complaint = regexp.MustCompile(`(error:|error loading model|GGML_ASSERT|llama_init_from_model:).*`)

// complaints passes on what a program of llama.cpp says, and remembers the last line that tells what is wrong.
type complaints struct {
	to io.Writer

	mu   sync.Mutex
	line string
}

func (c *complaints) Write(said []byte) (int, error) {
	if found := complaint.FindAllString(string(said), -1); len(found) > 0 {
		c.mu.Lock()
		c.line = strings.TrimSpace(found[len(found)-1])
		c.mu.Unlock()
	}
	return c.to.Write(said)
}

// because ends a message with the complaint, where there is one.
func (c *complaints) because() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.line == "" {
		return ""
	}
	return ": " + c.line
}
