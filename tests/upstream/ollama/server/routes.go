// Package server answers the HTTP interface.
package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/ollama/ollama/api"
	"github.com/ollama/ollama/envconfig"
	"github.com/ollama/ollama/fs/ggml"
	"github.com/ollama/ollama/llm"
	"github.com/ollama/ollama/version"
)

var mode string = "debug"

// Server has at most one model loaded.
type Server struct {
	mu      sync.Mutex
	runner  *llm.Runner
	loaded  api.ProcessInfo
	expires *time.Timer
}

func send(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func fail(w http.ResponseWriter, status int, err error) {
	slog.Error("request failed", "status", status, "error", err)
	send(w, status, map[string]string{"error": err.Error()})
}

// lines returns a function that sends its argument as one line of a streamed answer.
func lines(w http.ResponseWriter) func(any) error {
	w.Header().Set("Content-Type", "application/x-ndjson")
	return func(v any) error {
		err := json.NewEncoder(w).Encode(v)
		if f, ok := w.(http.Flusher); ok {
			f.Flush()
		}
		return err
	}
}

func (s *Server) unload() {
	if s.runner != nil {
		s.runner.Close()
		s.runner = nil
		s.loaded = api.ProcessInfo{}
	}
}

// load makes name, with the context that opts ask for, the model that is loaded.
func (s *Server) load(ctx context.Context, name string, opts api.Options) error {
	if s.runner != nil && !s.runner.HasExited() && s.loaded.Name == name && s.loaded.ContextLength == opts.NumCtx {
		return nil
	}
	s.unload()
	path, err := modelFile(name)
	if err != nil {
		return err
	}
	f, err := decode(path)
	if err != nil {
		return err
	}
	runner, err := llm.NewLlamaServer(ctx, path, f, opts)
	if err != nil {
		return err
	}
	s.runner = runner
	s.loaded = api.ProcessInfo{
		Name: name, Model: name, Size: llm.PredictServerVRAM(path, f, opts.NumCtx), ContextLength: opts.NumCtx,
	}
	return nil
}

func decode(path string) (*ggml.GGML, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return ggml.Decode(file)
}

// expireAfter unloads the model when nobody has used it for so long; a negative time is forever.
func (s *Server) expireAfter(d time.Duration) {
	if s.expires != nil {
		s.expires.Stop()
	}
	if d < 0 {
		return
	}
	s.loaded.ExpiresAt = time.Now().Add(d)
	used := s.runner
	s.expires = time.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.runner == used && !time.Now().Before(s.loaded.ExpiresAt) {
			s.unload()
		}
	})
}

func (s *Server) generate(w http.ResponseWriter, r *http.Request) {
	var req api.GenerateRequest
	opts := api.DefaultOptions()
	err := json.NewDecoder(r.Body).Decode(&req)
	if err == nil && len(req.Options) > 0 {
		err = json.Unmarshal(req.Options, &opts)
	}
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	name, err := fullName(req.Model)
	if _, missing := os.Stat(manifestPath(name)); err != nil || missing != nil {
		fail(w, http.StatusNotFound, fmt.Errorf("model '%s' not found", req.Model))
		return
	}
	keep := envconfig.KeepAlive()
	if req.KeepAlive != nil {
		keep = req.KeepAlive.Duration
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	start := time.Now()
	if req.Prompt == "" && keep == 0 {
		s.unload()
		send(w, http.StatusOK, api.GenerateResponse{Model: req.Model, CreatedAt: start, Done: true, DoneReason: "unload"})
		return
	}
	if err := s.load(r.Context(), name, opts); err != nil {
		fail(w, http.StatusInternalServerError, err)
		return
	}
	defer func() { s.expireAfter(keep) }()
	loaded := time.Now()
	if req.Prompt == "" {
		send(w, http.StatusOK, api.GenerateResponse{Model: req.Model, CreatedAt: loaded, Done: true, DoneReason: "load"})
		return
	}

	text, first, streaming := "", time.Time{}, req.Stream == nil || *req.Stream
	line := lines(w)
	begun := false
	err = s.runner.Completion(r.Context(), req.Prompt, opts.NumPredict, func(c llm.CompletionResponse) error {
		now := time.Now()
		if first.IsZero() {
			first = now
		}
		resp := api.GenerateResponse{Model: req.Model, CreatedAt: now.UTC(), Response: c.Content, Done: c.Done}
		text += c.Content
		if c.Done {
			resp.DoneReason = map[string]string{"limit": "length"}[c.StopType]
			if resp.DoneReason == "" {
				resp.DoneReason = "stop"
			}
			resp.TotalDuration, resp.LoadDuration = now.Sub(start), loaded.Sub(start)
			resp.PromptEvalCount, resp.PromptEvalDuration = c.PromptEvalCount, first.Sub(loaded)
			resp.EvalCount, resp.EvalDuration = c.EvalCount, now.Sub(first)
			if !streaming {
				resp.Response = text
				send(w, http.StatusOK, resp)
				return nil
			}
		}
		if !streaming {
			return nil
		}
		begun = true
		return line(resp)
	})
	var refusal llm.StatusError
	switch {
	case err == nil:
	case begun:
		_ = line(map[string]string{"error": err.Error()})
	case errors.As(err, &refusal):
		fail(w, refusal.Code, err)
	default:
		fail(w, http.StatusInternalServerError, err)
	}
}

func (s *Server) create(w http.ResponseWriter, r *http.Request) {
	var req api.CreateRequest
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	name, err := fullName(req.Model)
	if err == nil && len(req.Files) != 1 {
		err = errors.New("exactly one file is needed")
	}
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	line := lines(w)
	for _, digest := range req.Files {
		_ = line(map[string]string{"status": "parsing GGUF"})
		if err := importModel(r.Context(), name, digest); err != nil {
			_ = line(map[string]string{"error": err.Error()})
			return
		}
	}
	_ = line(map[string]string{"status": "success"})
}

// importModel makes a model of an uploaded blob: its weights as llama.cpp writes them, and a manifest.
func importModel(ctx context.Context, name, digest string) error {
	blob, err := blobPath(digest)
	if err != nil {
		return err
	}
	if _, err := decode(blob); err != nil {
		return err
	}
	copied := blob + ".copy"
	defer os.Remove(copied)
	if err := llm.Copy(ctx, blob, copied); err != nil {
		return err
	}
	layer, err := saveLayer(copied)
	if err != nil {
		return err
	}
	return saveManifest(name, manifest{[]modelLayer{layer}})
}

func (s *Server) remove(w http.ResponseWriter, r *http.Request) {
	var req struct{ Model string }
	err := json.NewDecoder(r.Body).Decode(&req)
	name, invalid := fullName(req.Model)
	if err != nil || invalid != nil || os.Remove(manifestPath(name)) != nil {
		fail(w, http.StatusNotFound, fmt.Errorf("model '%s' not found", req.Model))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loaded.Name == name {
		s.unload()
	}
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "Ollama is running") })
	mux.HandleFunc("GET /api/version", func(w http.ResponseWriter, _ *http.Request) {
		send(w, http.StatusOK, map[string]string{"version": version.Version})
	})
	mux.HandleFunc("GET /api/tags", func(w http.ResponseWriter, _ *http.Request) {
		send(w, http.StatusOK, map[string]any{"models": models()})
	})
	mux.HandleFunc("GET /api/ps", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		running := []api.ProcessInfo{}
		if s.runner != nil && !s.runner.HasExited() {
			running = append(running, s.loaded)
		}
		send(w, http.StatusOK, map[string]any{"models": running})
	})
	mux.HandleFunc("HEAD /api/blobs/{digest}", func(w http.ResponseWriter, r *http.Request) {
		path, err := blobPath(r.PathValue("digest"))
		if _, missing := os.Stat(path); err != nil || missing != nil {
			w.WriteHeader(http.StatusNotFound)
		}
	})
	mux.HandleFunc("POST /api/blobs/{digest}", func(w http.ResponseWriter, r *http.Request) {
		if err := saveBlob(r.PathValue("digest"), r.Body); err != nil {
			fail(w, http.StatusBadRequest, err)
			return
		}
		w.WriteHeader(http.StatusCreated)
	})
	mux.HandleFunc("POST /api/create", s.create)
	mux.HandleFunc("POST /api/generate", s.generate)
	mux.HandleFunc("DELETE /api/delete", s.remove)
	return mux
}

// Serve answers requests until a signal ends the process; llama-server ends with it.
func Serve() error {
	l, err := net.Listen("tcp", envconfig.Host())
	if err != nil {
		return err
	}
	s := &Server{}
	slog.Info("server config", "mode", mode, "models", envconfig.Models(), "OLLAMA_KV_CACHE_TYPE", envconfig.KvCacheType())
	slog.Info(fmt.Sprintf("Listening on %s (version %s)", l.Addr(), version.Version))
	web := &http.Server{Handler: s.routes(), ReadHeaderTimeout: 30 * time.Second}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		_ = web.Close() // cuts requests off, so that a generation gives the lock back
	}()
	err = web.Serve(l)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unload()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
