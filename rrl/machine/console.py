"""What a run prints: live bars in a terminal, plain lines elsewhere, nothing where nobody takes it."""

from __future__ import annotations

import os
import sys
import textwrap
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from textwrap import shorten
from types import TracebackType
from typing import Any, TextIO, cast

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markup import escape
from rich.text import Text

PLAIN_PERIOD = 30.0  # seconds between progress lines where there is no terminal
COLUMNS = 120  # of lines, where that is possible: wider ones are hard to read
BAR = 24  # characters, at most
FULL, EMPTY = "\N{BOX DRAWINGS HEAVY HORIZONTAL}", "\N{BOX DRAWINGS LIGHT HORIZONTAL}"


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


def _note(message: Warning | str, *_: Any, **__: Any) -> str:
    """A warning in its own words: the line of code that gave it is of no use to whoever runs it."""
    return f"note: {message}\n"


@contextmanager
def optional_output() -> Iterator[None]:
    """Within the block, nothing that is printed, by whomever, is needed: a failing stdout or stderr ends nothing."""
    before, warned = (sys.stdout, sys.stderr), warnings.formatwarning
    # Python has None for a stream that was closed before it began.
    screens = [Screen(stream) if stream is not None else None for stream in before]
    sys.stdout, sys.stderr = cast(list[TextIO], screens)
    warnings.formatwarning = _note
    try:
        yield
    finally:
        warnings.formatwarning = warned
        for screen in screens:
            if screen is not None:
                screen.flush()
        sys.stdout, sys.stderr = before


def is_live(console: Console) -> bool:
    """May lines be drawn over? On a terminal alone: FORCE_COLOR asks for colours, not for thousands of bars in a
    file."""
    return console.is_interactive and console.file.isatty()


class Display:
    """Progress of one run: `phase` names what goes on and how many steps it takes, `advance` counts them, `expect` says
    how long the whole run takes yet."""

    def __init__(self, stream: Console | None = None) -> None:
        self.console = stream or Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self.live = is_live(self.console)
        self._live = Live(get_renderable=lambda: _Bars(self), console=self.console, transient=True)
        self._name = "starting"
        self._total = self._done = self._skipped = 0
        self._began = self._printed = time.monotonic()
        self._scored = self._told = ""
        """How well the policy does, and what of it a line has told where there is no terminal."""
        self._end, self._evaluating, self._untimed = 0.0, 0.0, ""
        """When the run is expected to end, on the monotonic clock (0: nobody knows), seconds of evaluation until then,
        and what is not counted."""

    def __enter__(self) -> Display:
        if self.live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def line(self, text: str) -> None:
        """Print a line that stays; on a terminal none of its words is broken."""
        text = wrapped(text, self.console.width) if self.live else text
        self.console.print(escape(text), soft_wrap=True)

    def phase(self, name: str, steps: int) -> None:
        """Begin to count `steps` steps of what `name` says (0: nobody knows how many)."""
        self._name, self._total, self._done, self._skipped = name, steps, 0, 0
        self._began = self._printed = time.monotonic()

    def skip(self, steps: int) -> None:
        """So many steps need not be made: they count, but tell nothing of the speed."""
        self._done += steps
        self._skipped += steps

    def advance(self, steps: int) -> None:
        """So many steps were made."""
        self._done += steps
        now = time.monotonic()
        if not self.live and now - self._printed > PLAIN_PERIOD:
            self._printed = now
            news = self._scored if self._scored != self._told else ""
            self._told = self._scored
            parts = [part for part in (self.now(), news, self.eta()) if part]
            text = f"  {', '.join(parts)}"
            self.line(text if len(text) <= COLUMNS else f"  {parts[0]}\n    {', '.join(parts[1:])}")

    def now(self) -> str:
        """What goes on, and how far it is, in words."""
        parts = [part.strip() for part in (self._counted(), self._rate(), self._left()) if part]
        return f"{self._name}: {', '.join(parts)}" if parts else self._name

    def expect(self, seconds: float, evaluating: float, untimed: Sequence[str] = ()) -> None:
        """The whole run takes so many seconds yet, `evaluating` of them in evaluations, beside parts that were never
        timed; 0: nobody knows."""
        self._end = time.monotonic() + seconds if seconds else 0.0
        self._evaluating, self._untimed = evaluating, ", ".join(untimed)

    def scored(self, text: str) -> None:
        """Show how well the policy does so far, in words, until they change."""
        self._scored = text

    def eta(self) -> str:
        """Such as `ETA 12 min (3 min of it evaluating)`; nothing if nobody knows, or if it should be over already."""
        # What goes on may be slower than was expected.
        left = max(self._end - time.monotonic(), self._seconds_left()) if self._end else 0.0
        if left < 1:
            return ""
        share = f"{duration(self._evaluating)} of it evaluating" if self._evaluating < left else "evaluating"
        notes = [share] if self._evaluating >= 1 else []
        notes += [f"{self._untimed} not timed yet"] if self._untimed else []
        return f"ETA {duration(left)}" + (f" ({'; '.join(notes)})" if notes else "")

    def bars(self, width: int) -> list[str]:
        """What is drawn over while a phase goes on: lines of at most `width` characters, of whole words."""
        parts = {"name": self._name, "count": self._counted(), "rate": self._rate()}
        parts |= {"elapsed": f"elapsed {duration(time.monotonic() - self._began)}", "left": self._left()}
        for dropped in ("", "rate", "elapsed", "left", "count"):  # what a narrow terminal goes without
            parts.pop(dropped, None)
            text = "  ".join(part for part in parts.values() if part)
            if len(text) <= width:
                break
        room = min(width - len(text) - 2, BAR)
        if self._total and room >= BAR // 3:
            full = round(room * min(self._done / self._total, 1.0))
            text = f"{text}  {FULL * full}{EMPTY * (room - full)}"
        after = [self._scored, self.eta()]
        if len(together := "  ".join(filter(None, after))) <= width:
            after = [together]
        return [shorten(part, width, placeholder=" ...") if len(part) > width else part for part in (text, *after)]

    def _counted(self) -> str:
        if self._total:
            total = f"{self._total:,}"
            return f"{self._done:>{len(total)},} of {total} steps"
        return f"{self._done:,} steps" if self._done else ""

    def _rate(self) -> str:
        return f"{self._per_second():,.0f} steps/s" if self._done > self._skipped else ""

    def _left(self) -> str:
        left = self._seconds_left()
        return f"{duration(left)} left" if left else ""

    def _seconds_left(self) -> float:
        """Of what goes on; 0: over, or nobody knows."""
        # While nearly all that was counted needed no work, nobody knows how much of the rest does.
        if 11 * self._skipped >= 10 * self._done or self._done >= self._total:
            return 0.0
        return (self._total - self._done) / self._per_second()

    def _per_second(self) -> float:
        return (self._done - self._skipped) / max(time.monotonic() - self._began, 1e-9)


@dataclass(frozen=True)
class _Bars:
    """What `Display.bars` says, as wide as the terminal is."""

    display: Display

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for text in filter(None, self.display.bars(options.max_width)):
            yield Text(text, no_wrap=True, overflow="ellipsis")


def wrapped(text: str, width: int | None) -> str:
    """Text in lines of at most `width` characters (None: as it is), broken where two spaces stand, or else between
    words: a path or an address stays whole, however long."""
    return text if width is None else "\n".join(part for line in text.split("\n") for part in _lines(line, width))


def _lines(line: str, width: int) -> list[str]:
    lines: list[str] = []
    now: str | None = None
    for part in line.split("  "):
        joined = part if now is None else f"{now}  {part}"
        if len(joined) > width:
            lines += [now] if now and now.strip() else []
            indent = "" if now is None else "  "
            *full, joined = textwrap.wrap(
                part,
                width,
                initial_indent=indent,
                subsequent_indent="  ",
                break_long_words=False,
                break_on_hyphens=False,
            ) or [""]
            lines += full
        now = joined
    return [*lines, now or ""]


def duration(seconds: float) -> str:
    """Such as 4 s, 12 min or 3 h 05 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
