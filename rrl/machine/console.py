"""What a run prints: live bars in a terminal, plain lines elsewhere, nothing where nobody takes it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, TextIO, cast

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


class Screen:
    """A stream that nobody needs: the first write that fails (a closed terminal or pipe, a full disk) turns it
    off, and what its encoding lacks is written as escapes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._off = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text; returns its length."""
        try:
            if not self._off:
                self._stream.write(text)
        except UnicodeEncodeError as error:
            self.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        except (OSError, ValueError):  # ValueError: it is closed
            self._turn_off()
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        try:
            if not self._off:
                self._stream.flush()
        except (OSError, ValueError):
            self._turn_off()

    def isatty(self) -> bool:
        """Is it a terminal?"""
        try:
            return self._stream.isatty()
        except ValueError:
            return False

    def _turn_off(self) -> None:
        self._off = True
        with suppress(OSError, ValueError):  # it need not have a file descriptor
            # What is still in the stream's buffer must go somewhere: else Python complains when it ends, exit 120.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


@contextmanager
def optional_output() -> Iterator[None]:
    """Within the block, nothing that is printed, by whomever, is needed: a failing stdout or stderr ends nothing."""
    before = sys.stdout, sys.stderr
    # Python has None for a stream that was closed before it began.
    screens = [Screen(stream) if stream is not None else None for stream in before]
    sys.stdout, sys.stderr = cast(list[TextIO], screens)
    try:
        yield
    finally:
        for screen in screens:
            if screen is not None:
                screen.flush()
        sys.stdout, sys.stderr = before


def is_live(console: Console) -> bool:
    """May lines be drawn over? On a terminal alone: FORCE_COLOR asks for colours, not for thousands of bars in a
    file."""
    return console.is_interactive and console.file.isatty()


class Display:
    """Progress of one run: `phase` names what goes on and how many steps it takes, `advance` counts them."""

    def __init__(self, stream: Console | None = None) -> None:
        self.console = stream or Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self.live = is_live(self.console)
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
