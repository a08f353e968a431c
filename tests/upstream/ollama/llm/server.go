package llm

import (
	"context"
	"strings"

	"github.com/ollama/ollama/api"
	"github.com/ollama/ollama/envconfig"
	"github.com/ollama/ollama/gguf"
)

// NewLlamaServer runs a model and returns when it answers. The context is cut to what the model was trained with.
func NewLlamaServer(ctx context.Context, model string, metadata gguf.Metadata, opts api.Options) (*Runner, error) {
	if trained := int(metadata.Number("context_length")); trained > 0 {
		opts.NumCtx = min(opts.NumCtx, trained)
	}
	kvct := strings.ToLower(envconfig.KvCacheType())
	return start(ctx, launch{opts, model, kvct})
}
