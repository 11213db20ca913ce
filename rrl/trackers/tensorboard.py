"""TensorBoard: event files, written by torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rrl.registry import register
from rrl.store.tracking import Row
from rrl.trackers.base import Tracker

FOLDER = "tensorboard"
"""Beside `runs/`."""


@register
class TensorBoard(Tracker):
    """Event files in `tensorboard/NAME-ID`, beside `runs/`: metrics over environment steps, and the settings as text.

    A resumed run's file is written anew from `metrics.jsonl`, with the times of then, in place of the earlier one.
    """

    package = "tensorboard"
    extra = "tensorboard"

    class Config(Tracker.Config):
        """Settings of TensorBoard: none."""

    _writer: Any

    def begin(self) -> int:
        """Nothing is held: a new file gets all rows."""
        from torch.utils.tensorboard import SummaryWriter

        folder = self.run.project / FOLDER / self.run.own_name
        self._facts: dict[str, str] = {}
        earlier = list(folder.glob("events.out.tfevents.*"))
        # Its first event tells a TensorBoard that is open on the earlier file to forget what it read there.
        self._writer = SummaryWriter(str(folder), purge_step=0)
        for path in earlier:
            path.unlink()
        self._writer.add_text("run", self.run.note, 0)
        self._writer.add_text("settings", _table(self.run.params), 0)
        return 0

    def record(self, row: Row) -> None:
        """Each number at its environment steps and its time."""
        for name, value in row.metrics.items():
            self._writer.add_scalar(name, value, row.step, walltime=row.time / 1000)

    def flush(self) -> None:
        """To the disk."""
        self._writer.flush()

    def tags(self, tags: Mapping[str, str]) -> None:
        """As a table of text: a later one takes the earlier one's place."""
        self._facts |= tags
        self._writer.add_text("facts", _table(self._facts), 0)

    def end(self, status: str) -> None:
        """Closes the file."""
        self._writer.close()

    def where(self) -> str:
        """The command."""
        return f"tensorboard --logdir {FOLDER}"


def _table(values: Mapping[str, str]) -> str:
    """In Markdown."""
    cells = (f"| {name} | {value.replace('|', '&#124;')} |" for name, value in values.items())
    return "\n".join(["| | |", "| --- | --- |", *cells])
