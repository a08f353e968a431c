// Package envconfig reads the settings that the environment holds.
package envconfig

import (
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Var is an environment variable without surrounding spaces and quotes.
func Var(key string) string {
	return strings.Trim(strings.TrimSpace(os.Getenv(key)), "\"'")
}

// String reads a variable each time that it is called.
func String(s string) func() string {
	return func() string {
		return Var(s)
	}
}

// KvCacheType is the quantization type for the K/V cache.
var KvCacheType = String("OLLAMA_KV_CACHE_TYPE")

// Host is the address to listen on, host:port.
func Host() string {
	host := strings.TrimSuffix(strings.TrimPrefix(Var("OLLAMA_HOST"), "http://"), "/")
	if host == "" {
		host = "127.0.0.1"
	}
	if !strings.Contains(host, ":") {
		host += ":11434"
	}
	return host
}

// Models is the folder that holds the blobs and manifests.
func Models() string {
	if dir := Var("OLLAMA_MODELS"); dir != "" {
		return dir
	}
	home, _ := os.UserHomeDir()
	return filepath.Join(home, ".ollama", "models")
}

// LoadTimeout is how long a model may take to load.
func LoadTimeout() time.Duration {
	if d, err := time.ParseDuration(Var("OLLAMA_LOAD_TIMEOUT")); err == nil && d > 0 {
		return d
	}
	return 5 * time.Minute
}

// KeepAlive is how long a model stays loaded when nobody uses it.
func KeepAlive() time.Duration {
	if d, err := time.ParseDuration(Var("OLLAMA_KEEP_ALIVE")); err == nil {
		return d
	}
	return 5 * time.Minute
}
