"""The command line. Commands import what they need when they run: `rrl --help` must be quick."""

from rrl.cli.main import app

__all__ = ["app"]
