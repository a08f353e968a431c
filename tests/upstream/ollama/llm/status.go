package llm

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// StatusWriter passes on what llama-server says and remembers its last complaint.
type StatusWriter struct {
	out  io.Writer
	mu   sync.Mutex
	last string
}

// NewStatusWriter returns a writer that passes everything on to out.
func NewStatusWriter(out io.Writer) *StatusWriter { return &StatusWriter{out: out} }

// LastError is the last line that was recognised as an error; empty where there was none.
func (w *StatusWriter) LastError() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

var errorPrefixes = []string{
	"error:",
	"error loading model",
	"GGML_ASSERT",
	"llama_init_from_model:",
	"llama_model_quantize:",
}

// Write implements io.Writer.
func (w *StatusWriter) Write(b []byte) (int, error) {
	for _, line := range bytes.Split(b, []byte("\n")) {
		for _, prefix := range errorPrefixes {
			if i := strings.Index(string(line), prefix); i >= 0 {
				w.mu.Lock()
				w.last = strings.TrimSpace(string(line[i:]))
				w.mu.Unlock()
				break
			}
		}
	}
	return w.out.Write(b)
}
