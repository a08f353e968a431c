// Package api holds the requests and responses of the HTTP interface.
package api

import (
	"encoding/json"
	"fmt"
	"time"
)

// Options are the settings of a model's runner.
type Options struct {
	NumKeep    int `json:"num_keep"`
	NumCtx     int `json:"num_ctx"`
	NumPredict int `json:"num_predict"`
}

// DefaultOptions are the options where a request says nothing.
func DefaultOptions() Options {
	return Options{NumKeep: 4, NumCtx: 4096, NumPredict: -1}
}

// Duration is a number of seconds, or text such as "5m"; negative is forever.
type Duration struct{ time.Duration }

// UnmarshalJSON reads either form.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	switch t := v.(type) {
	case float64:
		d.Duration = time.Duration(t * float64(time.Second))
	case string:
		parsed, err := time.ParseDuration(t)
		if err != nil {
			return err
		}
		d.Duration = parsed
	default:
		return fmt.Errorf("not a duration: %s", b)
	}
	return nil
}

// GenerateRequest is the body of /api/generate.
type GenerateRequest struct {
	Model     string          `json:"model"`
	Prompt    string          `json:"prompt"`
	Stream    *bool           `json:"stream"`
	KeepAlive *Duration       `json:"keep_alive"`
	Options   json.RawMessage `json:"options"`
}

// GenerateResponse is a line of the answer; the last one has Done set, and the counts and times (in nanoseconds).
type GenerateResponse struct {
	Model              string        `json:"model"`
	CreatedAt          time.Time     `json:"created_at"`
	Response           string        `json:"response"`
	Done               bool          `json:"done"`
	DoneReason         string        `json:"done_reason,omitempty"`
	TotalDuration      time.Duration `json:"total_duration,omitempty"`
	LoadDuration       time.Duration `json:"load_duration,omitempty"`
	PromptEvalCount    int           `json:"prompt_eval_count,omitempty"`
	PromptEvalDuration time.Duration `json:"prompt_eval_duration,omitempty"`
	EvalCount          int           `json:"eval_count,omitempty"`
	EvalDuration       time.Duration `json:"eval_duration,omitempty"`
}

// CreateRequest is the body of /api/create: files by name, each the digest of an uploaded blob.
type CreateRequest struct {
	Model string            `json:"model"`
	Files map[string]string `json:"files"`
}

// ModelInfo is an entry of /api/tags.
type ModelInfo struct {
	Name       string    `json:"name"`
	Model      string    `json:"model"`
	ModifiedAt time.Time `json:"modified_at"`
	Size       int64     `json:"size"`
	Digest     string    `json:"digest"`
}

// ProcessInfo is an entry of /api/ps.
type ProcessInfo struct {
	Name          string    `json:"name"`
	Model         string    `json:"model"`
	Size          uint64    `json:"size"`
	ExpiresAt     time.Time `json:"expires_at"`
	ContextLength int       `json:"context_length"`
}
