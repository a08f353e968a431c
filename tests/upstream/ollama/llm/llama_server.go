// Package llm runs models in llama-server, as a child process.
package llm

import (
	"bufio"
	"bytes"
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
	"strconv"
	"strings"
	"time"

	"github.com/ollama/ollama/api"
	"github.com/ollama/ollama/envconfig"
	"github.com/ollama/ollama/fs/ggml"
)

type llamaServerLaunchConfig struct {
	modelPath   string
	opts        api.Options
	numParallel int
	kvCacheType string
}

// Runner is a llama-server with one model.
type Runner struct {
	cmd    *exec.Cmd
	port   int
	status *StatusWriter
	done   chan struct{} // closed when the process has ended
}

// FindLlamaCppBinary locates a program of llama.cpp in ../lib/ollama, seen from where this program really is.
func FindLlamaCppBinary(name string) (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	if exe, err = filepath.EvalSymlinks(exe); err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(exe), "..", "lib", "ollama", name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s binary not found (checked: %s)", name, path)
	}
	return path, nil
}

// startLlamaServer starts llama-server with the arguments that the launch asks for, on a free loopback port.
func startLlamaServer(launch llamaServerLaunchConfig, out io.Writer) (cmd *exec.Cmd, port int, err error) {
	exe, err := FindLlamaCppBinary("llama-server")
	if err != nil {
		return nil, 0, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, 0, err
	}
	port = l.Addr().(*net.TCPAddr).Port
	l.Close()

	params := []string{
		"--model", launch.modelPath,
		"--port", strconv.Itoa(port),
		"--host", "127.0.0.1",
		"--no-webui",
		"--offline",
		"-c", strconv.Itoa(launch.opts.NumCtx * launch.numParallel),
		"-np", strconv.Itoa(launch.numParallel),
		"--log-verbosity", "4",
	}

	// KV cache type
	if launch.kvCacheType != "" {
		params = append(params, "--cache-type-k", launch.kvCacheType, "--cache-type-v", launch.kvCacheType)
	}

	params = append(params, "--flash-attn", "auto", "--context-shift", "--keep", strconv.Itoa(launch.opts.NumKeep))

	cmd = exec.Command(exe, params...)
	cmd.Stdout = out
	cmd.Stderr = out
	slog.Info("starting llama-server", "cmd", cmd)
	if err = cmd.Start(); err != nil {
		return nil, 0, err
	}
	return cmd, port, nil
}

// Copy reads a model file and writes it anew; one that llama.cpp cannot read is refused.
func Copy(ctx context.Context, from, to string) error {
	exe, err := FindLlamaCppBinary("llama-quantize")
	if err != nil {
		return err
	}
	status := NewStatusWriter(os.Stderr)
	cmd := exec.CommandContext(ctx, exe, from, to, "COPY")
	cmd.Stdout, cmd.Stderr = status, status
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("llama-quantize: %w: %s", err, status.LastError())
	}
	return nil
}

// NewLlamaServer starts a runner and waits until it serves. The context is cut to what the model was trained with.
func NewLlamaServer(ctx context.Context, modelPath string, f *ggml.GGML, opts api.Options) (*Runner, error) {
	if train := int(f.KV().ContextLength()); train > 0 && opts.NumCtx > train {
		slog.Warn("requested context size too large for model", "num_ctx", opts.NumCtx, "n_ctx_train", train)
		opts.NumCtx = train
	}
	r := &Runner{status: NewStatusWriter(os.Stderr), done: make(chan struct{})}
	var err error
	r.cmd, r.port, err = startLlamaServer(llamaServerLaunchConfig{
		modelPath: modelPath, opts: opts, numParallel: 1, kvCacheType: strings.ToLower(envconfig.KvCacheType()),
	}, r.status)
	if err != nil {
		return nil, err
	}
	go func() {
		_ = r.cmd.Wait()
		close(r.done)
	}()
	if err := r.waitUntilRunning(ctx); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Runner) waitUntilRunning(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, envconfig.LoadTimeout())
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("timed out waiting for llama-server to start: %w", ctx.Err())
		case <-r.done:
			if msg := r.status.LastError(); msg != "" {
				return fmt.Errorf("llama-server process has terminated: %s: %s", r.cmd.ProcessState, msg)
			}
			return fmt.Errorf("llama-server process has terminated: %s", r.cmd.ProcessState)
		case <-time.After(10 * time.Millisecond):
		}
		if resp, err := http.Get(r.url("/health")); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
	}
}

func (r *Runner) url(path string) string { return fmt.Sprintf("http://127.0.0.1:%d%s", r.port, path) }

// HasExited tells whether the process has ended.
func (r *Runner) HasExited() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// Close kills the process and waits for its end.
func (r *Runner) Close() {
	_ = r.cmd.Process.Kill()
	<-r.done
}

// CompletionResponse is one piece of text; the last has Done set, and the counts.
type CompletionResponse struct {
	Content         string `json:"content"`
	Done            bool   `json:"stop"`
	StopType        string `json:"stop_type"`
	EvalCount       int    `json:"tokens_predicted"`
	PromptEvalCount int    `json:"tokens_evaluated"`
}

// StatusError is llama-server's refusal of a request.
type StatusError struct {
	Code    int
	Message string
}

func (e StatusError) Error() string { return e.Message }

// Completion generates text and calls fn with each piece.
func (r *Runner) Completion(ctx context.Context, prompt string, numPredict int, fn func(CompletionResponse) error) error {
	body, err := json.Marshal(map[string]any{"prompt": prompt, "n_predict": numPredict, "stream": true})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url("/completion"), bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("llama-server: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var refusal struct{ Error struct{ Message string } }
		_ = json.NewDecoder(resp.Body).Decode(&refusal)
		return StatusError{resp.StatusCode, refusal.Error.Message}
	}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !ok {
			continue
		}
		var piece CompletionResponse
		if err := json.Unmarshal(data, &piece); err != nil {
			return err
		}
		if err := fn(piece); err != nil || piece.Done {
			return err
		}
	}
	return errors.New("llama-server ended in the middle of an answer")
}

// PredictServerVRAM estimates the memory that a model will take, before it is started: its file and an f16 cache.
func PredictServerVRAM(modelPath string, f *ggml.GGML, numCtx int) uint64 {
	var weights uint64
	if info, err := os.Stat(modelPath); err == nil {
		weights = uint64(info.Size())
	}

	layers := f.KV().BlockCount()
	kvHeads := f.KV().HeadCountKVMin()
	headDim := uint64(0)
	if f.KV().HeadCountMax() > 0 {
		headDim = f.KV().EmbeddingLength() / f.KV().HeadCountMax()
	}
	kvCache := 2 * layers * kvHeads * headDim * uint64(numCtx) * 2

	return weights + kvCache
}
