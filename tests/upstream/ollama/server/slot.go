package server

import (
	"context"
	"os"
	"sync"
	"time"

	"github.com/ollama/ollama/gguf"
	"github.com/ollama/ollama/llm"
)

// slot is the place for the one model that can be loaded. The lock is for all of it, and held while text is generated.
type slot struct {
	lock   sync.Mutex
	runner *llm.Runner // nil where there is none
	model  running
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

// load makes this the model in the slot, with as much context as the options ask for.
func (s *slot) load(ctx context.Context, name string, options llm.Options) error {
	same := s.model.Name == name && s.model.Cells == options.Context
	if same && s.runner != nil && s.runner.Running() {
		return nil
	}
	s.clear()
	path, err := weightsOf(name)
	if err != nil {
		return err
	}
	metadata, err := metadataOf(path)
	if err != nil {
		return err
	}
	size := llm.PredictServerVRAM(path, metadata, options.Context)
	if s.runner, err = llm.Start(ctx, path, metadata, options); err == nil {
		s.model = running{Name: name, Size: size, Cells: options.Context}
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
