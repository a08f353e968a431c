package server

import (
	"encoding/json"
	"time"
)

// generateRequest is the body of /api/generate. Names of fields are found whatever their case.
type generateRequest struct {
	Model, Prompt string
	Stream        *bool
	Options       json.RawMessage
	KeepAlive     any `json:"keep_alive"`
}

// createRequest is the body of /api/create: files by name, each by the digest of an uploaded blob.
type createRequest struct {
	Model string
	Files map[string]string
}

// progress is a line of the answer to /api/generate.
type progress struct {
	Model string    `json:"model"`
	At    time.Time `json:"created_at"`
	Text  string    `json:"response"`
	Done  bool      `json:"done"`
	*ending
}

// ending is what only the last line has: why it is the last, how long it all took (in nanoseconds), and how many
// tokens were read and written.
type ending struct {
	Why     string        `json:"done_reason"`
	Whole   time.Duration `json:"total_duration"`
	Loading time.Duration `json:"load_duration"`
	Reading time.Duration `json:"prompt_eval_duration"`
	Writing time.Duration `json:"eval_duration"`
	Read    int           `json:"prompt_eval_count"`
	Written int           `json:"eval_count"`
}

// stored is a model in the answer to /api/tags.
type stored struct {
	Name   string    `json:"name"`
	Size   int64     `json:"size"`
	Since  time.Time `json:"modified_at"`
	Digest string    `json:"digest"`
}

// running is the model in the answer to /api/ps; Size is what it is believed to take.
type running struct {
	Name  string    `json:"name"`
	Size  uint64    `json:"size"`
	Cells int       `json:"context_length"`
	Until time.Time `json:"expires_at"`
}
