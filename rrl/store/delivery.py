"""Deliveries to a store that may be away for a while: in order, none forgotten, and nobody waits for them."""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager

FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0
"""Seconds without a try after one that failed, doubled each time; an outage costs little so."""


class Deliveries:
    """What is to be told to a store. Each delivery is made when it is asked for, or after the store has come back."""

    def __init__(
        self,
        store: str,
        turn: Callable[[], AbstractContextManager[None]],
        refused: Callable[[Exception], bool],
        told: Callable[[Exception], str] = str,
    ) -> None:
        """`store`: its name in notes. `turn` is held while it is spoken to. `refused`: does this error mean that the
        store answers, and will never take this one? `told`: an error in words."""
        self.store, self.turn, self.refused, self.told = store, turn, refused, told
        self.waiting: deque[tuple[str, Callable[[], object]]] = deque()
        """What has not arrived, in order: (what it is, how it is delivered)."""
        self._again, self._pause = 0.0, FIRST_PAUSE

    def add(self, what: str, deliver: Callable[[], object], *, now: bool = True) -> None:
        """Deliver this after all that waits, `now` or, while the store is away, later."""
        self.waiting.append((what, deliver))
        if now and time.monotonic() >= self._again:
            self.flush()

    def flush(self) -> bool:
        """Deliver all that waits; False where the store can't be reached."""
        try:
            with self.turn():
                while self.waiting:
                    what, deliver = self.waiting[0]
                    try:
                        deliver()
                    except Exception as error:
                        if not self.refused(error):
                            raise
                        warnings.warn(
                            f"{self.store} does not take this run's {what} ({self.told(error)})", stacklevel=4
                        )
                    self.waiting.popleft()
        except Exception as error:
            if self._pause == FIRST_PAUSE:
                text = f"{self.store} can't be reached ({self.told(error)}); the training goes on, and it is told later"
                warnings.warn(text, stacklevel=4)
            self._again = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            return False
        self._again, self._pause = 0.0, FIRST_PAUSE
        return True
