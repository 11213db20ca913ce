"""One training run: its schema, its loop, its files, its process."""
