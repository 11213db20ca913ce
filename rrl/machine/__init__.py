"""What the machine offers and what it shows: processes, cores, the terminal."""
