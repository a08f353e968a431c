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
	"syscall"
	"time"

	"github.com/ollama/ollama/api"
	"github.com/ollama/ollama/envconfig"
	"github.com/ollama/ollama/llm"
	"github.com/ollama/ollama/version"
)

// mode is set with -X when the program is linked.
var mode = "by hand"

// failure is an error with the status that a client gets for it.
type failure struct {
	status int
	error
}

func bad(err error) error { return failure{http.StatusBadRequest, err} }

func missing(model string) error {
	return failure{http.StatusNotFound, fmt.Errorf("model %q not found", model)}
}

// reply is an answer of one JSON value, or of one on each line as they come.
type reply struct {
	http.ResponseWriter
	begun bool
}

func (r *reply) line(value any) error {
	if !r.begun {
		r.Header().Set("Content-Type", "application/x-ndjson")
		r.begun = true
	}
	if err := json.NewEncoder(r).Encode(value); err != nil {
		return err
	}
	return http.NewResponseController(r.ResponseWriter).Flush()
}

func (r *reply) whole(value any) error {
	r.begun = true
	r.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(r).Encode(value)
}

// route has an error that answer returns told to the client: by the status, or once lines were sent by one more.
func route(mux *http.ServeMux, pattern string, answer func(*reply, *http.Request) error) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, request *http.Request) {
		r := &reply{ResponseWriter: w}
		err := answer(r, request)
		if err == nil {
			return
		}
		slog.Error(pattern, "error", err)
		if !r.begun {
			status := http.StatusInternalServerError
			var refusal llm.Refusal
			var known failure
			if errors.As(err, &refusal) {
				status = refusal.Status
			} else if errors.As(err, &known) {
				status = known.status
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
		}
		_ = r.line(map[string]string{"error": err.Error()})
	})
}

func decode[T any](request *http.Request) (body T, err error) {
	if err = json.NewDecoder(request.Body).Decode(&body); err != nil {
		err = bad(err)
	}
	return body, err
}

// wanted are the options and the time to stay loaded that a request asks for, the latter in seconds or as in "5m".
func (g generateRequest) wanted() (options api.Options, stay time.Duration, err error) {
	options, stay = api.DefaultOptions(), envconfig.KeepAlive()
	if len(g.Options) > 0 {
		err = json.Unmarshal(g.Options, &options)
	}
	if err != nil {
		return options, stay, err
	}
	switch given := g.KeepAlive.(type) {
	case nil:
	case float64:
		stay = time.Duration(given * 1e9)
	case string:
		stay, err = time.ParseDuration(given)
	default:
		err = fmt.Errorf("keep_alive cannot be %v", given)
	}
	return options, stay, err
}

// generate loads the model, or unloads it where that is all that is asked for, and goes on with the prompt.
func (s *slot) generate(r *reply, request *http.Request) error {
	asked, err := decode[generateRequest](request)
	if err != nil {
		return err
	}
	options, stay, err := asked.wanted()
	if err != nil {
		return bad(err)
	}
	name, err := fullName(asked.Model)
	if err != nil || !isStored(name) {
		return missing(asked.Model)
	}

	s.lock.Lock()
	defer s.lock.Unlock()
	start := time.Now()
	done := func(why string) error {
		return r.whole(progress{Model: asked.Model, At: start, Done: true, ending: &ending{Why: why}})
	}
	if asked.Prompt == "" && stay == 0 {
		s.clear()
		return done("unload")
	}
	if err := s.load(request.Context(), LlmRequest{name: name, opts: options}); err != nil {
		return err
	}
	defer func() { s.clearAfter(stay) }()
	if asked.Prompt == "" {
		return done("load")
	}

	loaded, first, text := time.Now(), time.Time{}, ""
	return s.runner.Generate(request.Context(), asked.Prompt, options.NumPredict, func(piece llm.Piece) error {
		now := time.Now()
		if first.IsZero() {
			first = now
		}
		line := progress{Model: asked.Model, At: now, Text: piece.Text, Done: piece.Last}
		if piece.Last {
			why := "stop"
			if piece.Why == "limit" {
				why = "length"
			}
			line.ending = &ending{
				why, now.Sub(start), loaded.Sub(start), first.Sub(loaded), now.Sub(first), piece.Prompted, piece.Written,
			}
		}
		if asked.Stream == nil || *asked.Stream {
			return r.line(line)
		}
		text += piece.Text
		if line.Text = text; line.Done {
			return r.whole(line)
		}
		return nil
	})
}

// create makes a model of one uploaded blob: its weights as llama.cpp writes them, and a manifest.
func create(r *reply, request *http.Request) error {
	asked, err := decode[createRequest](request)
	if err != nil {
		return err
	}
	name, err := fullName(asked.Model)
	if err != nil {
		return bad(err)
	}
	if len(asked.Files) != 1 {
		return bad(errors.New("exactly one file is needed"))
	}
	for _, digest := range asked.Files {
		blob, err := blobPath(digest)
		if err != nil {
			return bad(err)
		}
		if _, err := metadataOf(blob); err != nil {
			return bad(err)
		}
		written := blob + ".copy"
		defer os.Remove(written)
		if err := llm.Copy(request.Context(), blob, written); err != nil {
			return bad(err)
		}
		if err := saveModel(name, written); err != nil {
			return err
		}
	}
	return r.line(map[string]string{"status": "success"})
}

func (s *slot) remove(_ *reply, request *http.Request) error {
	asked, err := decode[struct{ Model string }](request)
	if err != nil {
		return err
	}
	name, err := fullName(asked.Model)
	if err != nil || os.Remove(manifestPath(name)) != nil {
		return missing(asked.Model)
	}
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.model.Name == name {
		s.clear()
	}
	return nil
}

func (s *slot) list(r *reply, _ *http.Request) error {
	s.lock.Lock()
	defer s.lock.Unlock()
	models := []running{}
	if s.runner != nil && s.runner.Running() {
		models = append(models, s.model)
	}
	return r.whole(map[string]any{"models": models})
}

func (s *slot) routes() http.Handler {
	mux := http.NewServeMux()
	route(mux, "GET /api/version", func(r *reply, _ *http.Request) error {
		return r.whole(map[string]string{"version": version.Version})
	})
	route(mux, "GET /api/tags", func(r *reply, _ *http.Request) error {
		return r.whole(map[string]any{"models": models()})
	})
	route(mux, "GET /api/ps", s.list)
	route(mux, "HEAD /api/blobs/{digest}", func(r *reply, request *http.Request) error {
		path, err := blobPath(request.PathValue("digest"))
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			r.WriteHeader(http.StatusNotFound)
		}
		return nil
	})
	route(mux, "POST /api/blobs/{digest}", func(_ *reply, request *http.Request) error {
		if err := saveBlob(request.PathValue("digest"), request.Body); err != nil {
			return bad(err)
		}
		return nil
	})
	route(mux, "POST /api/create", create)
	route(mux, "POST /api/generate", s.generate)
	route(mux, "DELETE /api/delete", s.remove)
	return mux
}

// Serve answers requests until a signal ends the process; llama-server ends with it.
func Serve() error {
	listener, err := net.Listen("tcp", envconfig.Host())
	if err != nil {
		return err
	}
	slog.Info("ollama", "version", version.Version, "mode", mode, "address", listener.Addr(),
		"models", envconfig.Models(), "cache", envconfig.KvCacheType())
	s := &slot{}
	srvr := &http.Server{Handler: s.routes(), ReadHeaderTimeout: 30 * time.Second}
	told, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(told, func() {
		_ = srvr.Close() // cuts requests off, so that a generation gives the lock back
	})
	if err = srvr.Serve(listener); told.Err() != nil {
		err = nil
	}
	s.lock.Lock()
	defer s.lock.Unlock()
	s.clear()
	return err
}
