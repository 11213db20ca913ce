"""What a run prints: live bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

PLAIN_PERIOD = 30.0  # seconds between progress lines where there is no terminal


class Display:
    """Progress of one run: `phase` names what goes on and how many steps it takes, `advance` counts them."""

    def __init__(self, stream: Console | None = None) -> None:
        self.console = stream or Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self.live = self.console.is_terminal
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.live,
            transient=True,
        )
        self._task = self.progress.add_task("starting", total=None, rate="")
        self._name = ""
        self._total = self._done = 0
        self._began = self._printed = time.monotonic()

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self.progress.console.print(escape(text))

    def phase(self, name: str, steps: int) -> None:
        """Begin to count `steps` environment steps of what `name` says (0: it can't be counted)."""
        self._name, self._total, self._done = name, steps, 0
        self._began = self._printed = time.monotonic()
        self.progress.remove_task(self._task)  # rich's `reset` would keep the old total
        self._task = self.progress.add_task(escape(name), total=steps or None, rate="")

    def advance(self, steps: int) -> None:
        """So many environment steps were made."""
        self._done += steps
        now = time.monotonic()
        rate = self._done / max(now - self._began, 1e-9)
        if self.live:
            self.progress.update(self._task, completed=self._done, rate=f"{rate:,.0f} steps/s")
        elif now - self._printed > PLAIN_PERIOD:
            self._printed = now
            text = f"  {self._name}: {self._done:,}"
            if self._total:
                left = duration((self._total - self._done) / rate)
                self.line(f"{text} of {self._total:,} steps, {rate:,.0f} steps/s, {left} left")
            else:
                self.line(f"{text} steps, {rate:,.0f} steps/s")


def duration(seconds: float) -> str:
    """Such as 4 s, 12 min or 3 h 05 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
