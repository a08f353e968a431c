// Package envconfig reads the settings that the environment holds, each time that they are asked for.
package envconfig

import (
	"cmp"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// setting is a variable's value without the spaces and quotes around it, or what holds when there is none.
func setting(name, otherwise string) string {
	return cmp.Or(strings.Trim(os.Getenv("OLLAMA_"+name), " \t\r\n\"'"), otherwise)
}

func duration(name string, otherwise time.Duration) time.Duration {
	if d, err := time.ParseDuration(setting(name, "")); err == nil {
		return d
	}
	return otherwise
}

// KvCacheType is what keys and values are cached as; nothing leaves it to llama-server.
func KvCacheType() string { return setting("KV_CACHE_TYPE", "") }

// Host is the address to listen on, host:port.
func Host() string {
	address := strings.TrimPrefix(setting("HOST", "127.0.0.1"), "http://")
	if address = strings.TrimSuffix(address, "/"); !strings.Contains(address, ":") {
		address += ":11434"
	}
	return address
}

// Models is the folder that holds the blobs and manifests.
func Models() string {
	home, _ := os.UserHomeDir()
	return setting("MODELS", filepath.Join(home, ".ollama/models"))
}

// LoadTimeout is how long a model may take to load.
func LoadTimeout() time.Duration { return duration("LOAD_TIMEOUT", 5*time.Minute) }

// KeepAlive is how long a model stays loaded when nobody uses it; a negative time is forever.
func KeepAlive() time.Duration { return duration("KEEP_ALIVE", 5*time.Minute) }
