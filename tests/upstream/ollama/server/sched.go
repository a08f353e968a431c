package server

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/ollama/ollama/api"
	"github.com/ollama/ollama/gguf"
	"github.com/ollama/ollama/llm"
)

// slot is the place for the one model that can be loaded. The lock is for all of it, and held while text is generated.
type slot struct {
	lock   sync.Mutex
	runner *llm.Runner // nil where there is none
	model  running
	opts   api.Runner // what it was loaded with
	timer  *time.Timer
}

func metadataOf(path string) (gguf.Metadata, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return gguf.Read(file)
}

// LlmRequest is a model that somebody wants loaded, and how.
type LlmRequest struct {
	name  string
	model struct{ ModelPath string }
	opts  api.Options
}

// load makes this the model in the slot, unless it is there already and was loaded with the same options.
func (s *slot) load(ctx context.Context, req LlmRequest) error {
	same := s.model.Name == req.name && s.opts == req.opts.Runner
	if same && s.runner != nil && s.runner.Running() {
		return nil
	}
	s.clear()
	path, err := weightsOf(req.name)
	if err != nil {
		return err
	}
	f, err := metadataOf(path)
	if err != nil {
		return err
	}
	req.model.ModelPath = path
	predictedCtx := req.opts.NumCtx
	predicted := llm.PredictServerVRAM(req.model.ModelPath, f, predictedCtx)
	if s.runner, err = llm.NewLlamaServer(ctx, path, f, req.opts); err == nil {
		s.model, s.opts = running{Name: req.name, Size: predicted, Cells: predictedCtx}, req.opts.Runner
	}
	return err
}

func (s *slot) clear() {
	if s.runner != nil {
		s.runner.Close()
	}
	s.runner, s.model = nil, running{}
}

// clearAfter empties the slot when nobody has used it for so long; a negative time is forever.
func (s *slot) clearAfter(stay time.Duration) {
	if s.timer != nil {
		s.timer.Stop()
	}
	if stay < 0 {
		return
	}
	used, until := s.runner, time.Now().Add(stay)
	s.model.Until = until
	s.timer = time.AfterFunc(stay, func() {
		s.lock.Lock()
		defer s.lock.Unlock()
		if s.runner == used && s.model.Until.Equal(until) {
			s.clear()
		}
	})
}
