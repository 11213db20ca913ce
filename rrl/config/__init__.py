"""Gin files: a file in, one typed, immutable value out. `rrl.config.ginfile` is the front."""
