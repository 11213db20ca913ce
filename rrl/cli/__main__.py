"""`python -m rrl.cli` is `rrl`."""

from rrl.cli import app

if __name__ == "__main__":
    app(prog_name="rrl")
