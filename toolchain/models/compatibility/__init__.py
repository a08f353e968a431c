"""Which cache types a model bears: models whose keys have extreme channels are recognised before they are served."""
