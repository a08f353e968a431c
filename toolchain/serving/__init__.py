"""Running an Ollama or llama-server for a test: API, log, saved slots, and a probe model."""
