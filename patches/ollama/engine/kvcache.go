package kvcache

import (
	"fmt"
	"os"

	"github.com/ollama/ollama/ml"
)

// state writes the types and the size of the cache into the log, once it is allocated, in the words of llama.cpp.
func (c *Causal) state(reserve bool) {
	if reserve || c.stated || len(c.keys) == 0 {
		return
	}
	c.stated = true
	var k, v int
	for layer, key := range c.keys {
		k += key.Stride(2) * key.Dim(2)
		v += c.values[layer].Stride(2) * c.values[layer].Dim(2)
	}
	const mib = 1 << 20
	typeK, typeV := c.DType.OfKeys(), c.DType.OfValues()
	fmt.Fprintf(os.Stderr, "ollama_kv_cache: size = %7.2f MiB (%6d cells, %3d layers, %2d/%d seqs), K (%s): %7.2f MiB, V (%s): %7.2f MiB\n",
		float64(k+v)/mib, len(c.cells), len(c.keys), 1, 1, typeK.CacheName(), float64(k)/mib, typeV.CacheName(), float64(v)/mib)
	fmt.Fprintf(os.Stderr, "ollama_kv_cache: attn_rot_k = %d\n", turned(typeK))
	fmt.Fprintf(os.Stderr, "ollama_kv_cache: attn_rot_v = %d\n", turned(typeV))
}

func turned(dtype ml.DType) int {
	if dtype.IsTurned() {
		return 1
	}
	return 0
}

// turnedKey is a key as the cache stores it.
func turnedKey(ctx ml.Context, cache, key ml.Tensor) ml.Tensor {
	if turner, ok := key.(ml.KVTurner); ok {
		return turner.TurnedKey(ctx, cache)
	}
	return key
}

// turnedValue is a value as the cache stores it.
func turnedValue(ctx ml.Context, cache, value ml.Tensor) ml.Tensor {
	if turner, ok := value.(ml.KVTurner); ok {
		return turner.TurnedValue(ctx, cache)
	}
	return value
}

// plainKey is a stored key as RoPE needs it: where the cache turns keys, decoded and turned back.
func plainKey(ctx ml.Context, key ml.Tensor) ml.Tensor {
	if key.DType().IsTurned() {
		return turnedKey(ctx, key, key.Cast(ctx, ml.DTypeF32))
	}
	return key
}
