package llm

import (
	"fmt"
	"strings"

	"github.com/ollama/ollama/envconfig"
	"github.com/ollama/ollama/fs/ggml"
	"github.com/ollama/ollama/ml"
)

// chosenKVCacheType is a model's option kv_cache_type if it is set, else OLLAMA_KV_CACHE_TYPE. An error says why the model
// cannot have it.
func chosenKVCacheType(f *ggml.GGML, gpus []ml.DeviceInfo, option string, flashAttentionOff bool) (string, error) {
	setting := strings.ToLower(strings.TrimSpace(option))
	if setting == "" {
		setting = strings.ToLower(strings.TrimSpace(envconfig.KvCacheType()))
	}
	if f.IsEmbedding() && ggml.NeedsFlashAttention(setting) {
		return "", nil // what it computes for a request is not kept, so that a type for all models is not its concern
	}
	if err := f.CheckKVCacheType(setting); err != nil {
		return "", err
	}
	if k, v := ggml.SplitKVCacheType(setting); k == v && setting != "" {
		setting = k
	}
	if ggml.NeedsFlashAttention(setting) && (flashAttentionOff || !ml.FlashAttentionSupported(gpus)) {
		why := "OLLAMA_FLASH_ATTENTION turns off"
		if !flashAttentionOff {
			why = "this machine's GPU does not have"
		}
		return "", fmt.Errorf("KV cache type %q needs flash attention, which %s", setting, why)
	}
	return setting, nil
}
