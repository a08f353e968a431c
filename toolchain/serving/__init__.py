"""An Ollama or a llama-server to ask, started and stopped; what its log and saved slot say; a model to load."""
