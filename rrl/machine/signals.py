"""Signals that ask a run or a sweep to end: heard while it works, never while it writes down how it ended."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
AGAIN = 0.02  # seconds until a signal is sent once more that came where nothing can be raised
PATIENCE = 5.0  # seconds; signals that follow the first one sooner ask for nothing new
SAME_PRESS = 0.5  # seconds; programs that start others may pass on a Ctrl-C which the terminal has sent already


class Stopped(BaseException):
    """A signal arrived. Not an Exception: nothing on the way may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        self.code = 128 + number
        """The exit code, as shells count."""


class Stopping:
    """While it is open, a signal of `ENDING` raises `Stopped` between `listen` and `hold`; at other times it is
    noted, and `listen` raises it. SIGINT and SIGHUP stay ignored where they were (nohup).

    Work that is better finished sets `waiting`: then a first Ctrl-C may wait until `pause`, and the second one raises.
    """

    def __init__(self) -> None:
        self.waiting: Callable[[], bool] | None = None
        """Asked at the first Ctrl-C, which it tells the user's choice: True: `pause` comes, and what is done until then
        is worth it; False, and None: end at once."""
        self._pressed: float | None = None
        """When the first Ctrl-C came."""
        self._granted = False
        """Does it wait for `pause`?"""
        self._listening = False
        self._noted: int | None = None
        self._raised = -PATIENCE
        self._cause: Stopped | None = None
        """What was raised last."""
        self._told_before: Callable[[Any], Any] = sys.unraisablehook
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stopping:
        for number in ENDING:
            before = signal.getsignal(number)
            if number == signal.SIGTERM or before is not signal.SIG_IGN:
                self._before[number] = before
                signal.signal(number, self._arrived)
        self._told_before, sys.unraisablehook = sys.unraisablehook, self._lost
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening = False
        sys.unraisablehook = self._told_before
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def listen(self) -> None:
        """Raise `Stopped` from now on, at once if a signal has come already."""
        self._listening = True
        if self._noted is not None:
            self._arrived(self._noted, None)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """A block in which other errors that a `Stopped` has become are `Stopped` again: ctypes makes its own of what
        is raised while it converts arguments, and rendering is full of these."""
        try:
            yield
        except Exception as error:
            if self._cause is None:
                raise
            raise self._cause from error

    def pause(self) -> None:
        """Nothing would be lost here: raise `Stopped` if a Ctrl-C waits for this."""
        if self._granted:
            self._raise(signal.SIGINT)

    def hold(self) -> None:
        """Raise nothing from now on."""
        self._listening = False

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if not self._listening:
            self._noted = number
        elif number == signal.SIGINT and self._waits():
            pass
        elif _finalising(frame):
            _once_more(number)
        elif time.monotonic() - self._raised > PATIENCE:  # one per request: the second would break off the closing
            self._raise(number)

    def _raise(self, number: int) -> None:
        self._raised, self._cause = time.monotonic(), Stopped(number)
        raise self._cause

    def _waits(self) -> bool:
        """Does a Ctrl-C that has come now wait for `pause`?"""
        now = time.monotonic()
        if self._pressed is None:
            self._pressed, self._granted = now, self.waiting is not None and self.waiting()
            return self._granted
        return self._granted and now - self._pressed < SAME_PRESS

    def _lost(self, unraisable: Any) -> None:
        """Python dropped an exception where nothing can be raised: of ours, once more."""
        if self._listening and isinstance(unraisable.exc_value, Stopped):
            self._raised = -PATIENCE
            _once_more(unraisable.exc_value.code - 128)
        else:
            self._told_before(unraisable)


def _finalising(frame: FrameType | None) -> bool:
    """Is this inside a `__del__`, or what a weak reference calls? What is raised there is printed and lost."""
    while frame is not None and frame.f_code.co_name != "__del__" and frame.f_code.co_filename != weakref.__file__:
        frame = frame.f_back
    return frame is not None


def _once_more(number: int) -> None:
    """Send this process a signal soon."""
    threading.Timer(AGAIN, os.kill, (os.getpid(), number)).start()


@contextmanager
def told(say: Callable[[str], None], then: str) -> Iterator[None]:
    """A block that a signal ends with a line, `stopped; ` and what to do then, and with the exit code that shells
    expect."""
    with Stopping() as stopping:
        try:
            with stopping.translated():
                stopping.listen()
                yield
                stopping.hold()
        except Stopped as cause:
            stopping.hold()
            say(f"stopped; {then}")
            raise SystemExit(cause.code) from None
