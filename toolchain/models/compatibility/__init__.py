"""Which cache types a model works with. Models whose keys have extreme channels are detected before they are served."""
