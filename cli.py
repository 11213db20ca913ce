"""Run the command line straight from a checkout: `python cli.py run gin/quickstart.gin`."""

from rrl.cli import app

if __name__ == "__main__":
    app()
