"""Where long work says how far it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Where long work says how far it is (`rrl.machine.console.Display`)."""

    def line(self, text: str) -> None:
        """Print a line that stays."""

    def phase(self, name: str, steps: int) -> None:
        """Begin to count `steps` steps of what `name` says."""

    def advance(self, steps: int) -> None:
        """So many steps were made."""


class Silence:
    """Progress that nobody sees."""

    def line(self, text: str) -> None:
        """Nothing."""

    def phase(self, name: str, steps: int) -> None:
        """Nothing."""

    def advance(self, steps: int) -> None:
        """Nothing."""


SILENCE = Silence()
