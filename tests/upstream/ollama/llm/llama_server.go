// Package llm runs models in llama-server, as a child process.
package llm

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/ollama/ollama/api"
	"github.com/ollama/ollama/envconfig"
	"github.com/ollama/ollama/gguf"
)

const pollEvery = 10 * time.Millisecond

// Runner is a llama-server with one model.
type Runner struct {
	process *exec.Cmd
	url     string
	ended   chan struct{} // closed when the process is gone
}

// installed is the path of a program of llama.cpp: in ../lib/ollama, from where this program really is.
func installed(program string) (string, error) {
	own, err := os.Executable()
	if err == nil {
		own, err = filepath.EvalSymlinks(own)
	}
	return filepath.Join(own, "../../lib/ollama", program), err
}

func freePort() (int, error) {
	claim, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer claim.Close()
	return claim.Addr().(*net.TCPAddr).Port, nil
}

type launch struct {
	api.Options
	model       string
	kvCacheType string
}

// startLlamaServer starts llama-server on the port of the loopback that it returns; what it says goes to log.
func startLlamaServer(launch launch, log io.Writer) (*exec.Cmd, int, error) {
	program, err := installed("llama-server")
	if err != nil {
		return nil, 0, err
	}
	port, err := freePort()
	if err != nil {
		return nil, 0, err
	}
	params := []string{"--model", launch.model, "--host", "127.0.0.1", "--port", fmt.Sprint(port)}
	params = append(params, "--ctx-size", fmt.Sprint(launch.NumCtx), "--keep", fmt.Sprint(launch.NumKeep), "--context-shift")
	if launch.kvCacheType != "" {
		for _, side := range []string{"k", "v"} {
			params = append(params, "--cache-type-"+side, launch.kvCacheType)
		}
	}
	slog.Info("llama-server", "arguments", params)
	process := exec.Command(program, params...)
	process.Stdout, process.Stderr = log, log
	return process, port, process.Start()
}

// start runs a model and returns when it answers.
func start(ctx context.Context, launch launch) (*Runner, error) {
	said := &complaints{to: os.Stderr}
	process, port, err := startLlamaServer(launch, said)
	if err != nil {
		return nil, err
	}
	r := &Runner{process: process, url: fmt.Sprintf("http://127.0.0.1:%d", port), ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		_ = process.Wait()
	}()
	patience := time.After(envconfig.LoadTimeout())
	for !r.answers() {
		select {
		case <-time.After(pollEvery):
			continue
		case <-r.ended:
			return nil, fmt.Errorf("llama-server ended: %s%s", process.ProcessState, said.because())
		case <-ctx.Done():
			err = ctx.Err()
		case <-patience:
			err = errors.New("the model takes too long to load" + said.because())
		}
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Runner) answers() bool {
	answer, err := http.Get(r.url + "/health")
	if err != nil {
		return false
	}
	answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

// Running tells whether the process is still there.
func (r *Runner) Running() bool {
	select {
	case <-r.ended:
		return false
	default:
		return true
	}
}

// Close ends the process and returns when it is gone.
func (r *Runner) Close() {
	_ = r.process.Process.Kill()
	<-r.ended
}

// Copy reads a model file and writes it anew; one that llama.cpp cannot read is refused.
func Copy(ctx context.Context, from, to string) error {
	program, err := installed("llama-quantize")
	if err != nil {
		return err
	}
	said := &complaints{to: os.Stderr}
	process := exec.CommandContext(ctx, program, from, to, "COPY")
	process.Stdout, process.Stderr = said, said
	if err := process.Run(); err != nil {
		return fmt.Errorf("llama-quantize: %w%s", err, said.because())
	}
	return nil
}

// Piece is a part of a generated text. The last has no text, but why it is the last and how many tokens there were.
type Piece struct {
	Text     string `json:"content"`
	Last     bool   `json:"stop"`
	Why      string `json:"stop_type"`
	Written  int    `json:"tokens_predicted"`
	Prompted int    `json:"tokens_evaluated"`
}

// Refusal is llama-server's answer to a request that it does not serve.
type Refusal struct {
	Status int
	Reason string
}

func (r Refusal) Error() string { return r.Reason }

// Generate goes on with a prompt, for up to so many tokens, and hands over each piece as it comes.
func (r *Runner) Generate(ctx context.Context, prompt string, tokens int, take func(Piece) error) error {
	wanted, err := json.Marshal(map[string]any{"prompt": prompt, "n_predict": tokens, "stream": true})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, "POST", r.url+"/completion", bytes.NewReader(wanted))
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("llama-server: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode >= http.StatusBadRequest {
		var said struct{ Error struct{ Message string } }
		_ = json.NewDecoder(answer.Body).Decode(&said)
		return Refusal{answer.StatusCode, cmp.Or(said.Error.Message, answer.Status)}
	}
	for events := bufio.NewScanner(answer.Body); events.Scan(); {
		event, found := bytes.CutPrefix(events.Bytes(), []byte("data: "))
		if !found {
			continue
		}
		var piece Piece
		if err := json.Unmarshal(event, &piece); err != nil {
			return err
		}
		if err := take(piece); err != nil || piece.Last {
			return err
		}
	}
	return errors.New("llama-server ended in the middle of an answer")
}

// PredictServerVRAM estimates what a model takes, before it runs: as much as its file, and a cache in half precision.
func PredictServerVRAM(model string, metadata gguf.Metadata, numCtx int) uint64 {
	var weights uint64
	if file, err := os.Stat(model); err == nil {
		weights = uint64(file.Size())
	}
	heads := max(metadata.Number("attention.head_count"), 1)
	width := metadata.Number("embedding_length") / heads * cmp.Or(metadata.Number("attention.head_count_kv"), heads)
	const each = 2 + 2 // bytes of a value of K, and of one of V
	layers := metadata.Number("block_count")
	kvCache := each * width * layers * uint64(numCtx)
	return weights + kvCache
}
