"""Replay memory: every observation once, whatever the stack; on disk in segments that never change."""

from __future__ import annotations

import mmap
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rrl.machine.processes import in_bytes
from rrl.registry import UserError
from rrl.rollout.data import Rollout
from rrl.store import files
from rrl.store.arrays import Npz, npz

ARRAYS = ("rows", "actions", "rewards", "t", "kind")
NORESERVE = 0x4000 if sys.platform == "linux" else 0  # of mman.h; Python has no name for it before 3.13
LAST, STEP, END = 0, 1, 2
"""Kinds of places: an observation that no action followed (an episode's last, or the newest); a step; a
step that truly ended the task, with nothing to be earned after it."""
FURTHEST = 2**53
"""Of places: more than any training counts to."""


class Batch(NamedTuple):
    """Transitions drawn from a replay memory."""

    rows: NDArray[Any]
    """[B, stack + 1, n]: what was kept of the observations, oldest first; the last one is what the action led
    to. The first `stack` are what the action was chosen from, the last `stack` what follows. Where returns are of
    several steps, [B, 2 stack, n]: the two beside each other."""
    actions: Tensor
    """[B, m]"""
    rewards: Tensor
    """[B]: of the step, or the discounted sum of several."""
    not_done: Tensor
    """[B]: 0 where the task truly ended, else 1 (time limits are not ends), or after a sum over k steps gamma^(k - 1):
    what the value of what follows counts, beside one gamma."""


@dataclass
class _Segment:
    """Places [first, first + count) of a slot's history, as they lie in a file."""

    name: str
    slot: int
    first: int
    count: int

    @classmethod
    def of(cls, slot: int, first: int, count: int) -> _Segment:
        """The one of these places."""
        return cls(f"{slot}-{first:012d}-{first + count - 1:012d}.npz", slot, first, count)

    def fits(self, head: NDArray[np.int64]) -> bool:
        """Is it one that a memory with these newest places wrote?"""
        numbers = (self.slot, self.first, self.count)
        return (
            all(type(number) is int and number >= 0 for number in numbers)
            and self.slot < len(head)
            and self.first + self.count <= head[self.slot] + 1
            and self == _Segment.of(*numbers)
        )


class Replay:
    """The latest `capacity` observations of N slots, in a ring for each slot.

    A place holds one observation and the action, reward and end that followed; what a step led to is the
    next place, so an observation is stored once. Stacks are put together when drawing: an episode's first
    observation stands for those before it. Memory: capacity * (bytes of a row + 9 + 4 m).
    """

    def __init__(self, capacity: int, row: int, kind: type[Any], action_dim: int, stack: int = 1) -> None:
        """`row` numbers of type `kind` per observation. Memory is taken when the first steps come."""
        self.capacity, self.row, self.row_kind, self.action_dim = capacity, row, kind, action_dim
        self.stack = stack
        self._segments: list[_Segment] = []
        self._dropped: list[str] = []
        self._allocate(0)

    def _allocate(self, slots: int) -> None:
        """UserError if a slot can't hold a few stacks."""
        self.slots, self.size = slots, -(-self.capacity // max(slots, 1))
        if self.size < 2 * self.stack + 2:
            where = f"{slots} environments" if slots else f"stacks of {self.stack}"
            raise UserError(f"a replay memory of {self.capacity} observations is too small for {where}")
        shape = (slots, self.size)
        count = slots * self.size * self.row
        size = max(count, 1) * np.dtype(self.row_kind).itemsize
        try:
            # A mapping takes memory from the system only as it fills (see `processes.keep_freed_memory`), and with
            # NORESERVE it may be larger than the machine's: a short run fills little of it.
            lazy = mmap.mmap(-1, size, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | NORESERVE)
            self.actions = np.zeros((*shape, self.action_dim), np.float32)
            self.rewards = np.zeros(shape, np.float32)
            self.t = np.zeros(shape, np.int32)
            self.kind = np.zeros(shape, np.uint8)
        except (OSError, MemoryError) as error:
            raise UserError(
                f"this machine has no room for a replay memory of {self.capacity:,} observations ({in_bytes(size)} "
                f"and their actions): {error}"
            ) from error
        self.rows = np.frombuffer(lazy, self.row_kind, count).reshape(*shape, self.row)
        self.head = np.zeros(slots, np.int64)
        """Per slot the place, counted without wrapping, of the newest observation."""
        self._saved = np.zeros(slots, np.int64)

    def add(self, rollout: Rollout, slots: int | None = None) -> None:
        """Append the pieces of a rollout, piece e to its own slot, or without one to slot e modulo `slots` (None: as
        many as there are pieces; the first call decides). UserError where a piece doesn't go on from the one before it.

        A piece may be one step of a running episode or all of it. The observation that it led to is put
        in as the newest; where the episode goes on, the next piece begins with that very observation.
        """
        if self.slots == 0:
            self._allocate(slots or (rollout.episodes if rollout.slots is None else int(rollout.slots.max()) + 1))
        last = np.append(np.flatnonzero(np.diff(rollout.episode)), len(rollout.t) - 1)
        begin = 0
        for e, end in enumerate(last):
            slot = e % self.slots if rollout.slots is None else int(rollout.slots[e])
            if slot >= self.slots:
                raise UserError(f"the replay memory is of {self.slots} environments, not of {slot + 1} or more")
            if rollout.t[begin] != self.t[slot, self.head[slot] % self.size]:
                raise UserError(
                    f"slot {slot} of the replay memory doesn't go on where its last piece stopped: steps are missing, "
                    "or the checkpoint's memory and environments are of different moments"
                )
            for i in range(begin, end + 1):
                here = self.head[slot] % self.size
                self.rows[slot, here] = rollout.obs[i]
                self.actions[slot, here] = rollout.actions[i]
                self.rewards[slot, here] = rollout.rewards[i]
                self.t[slot, here] = rollout.t[i]
                self.kind[slot, here] = END if rollout.terminated[i] else STEP
                self._advance(slot, rollout.final_obs[e] if i == end else rollout.obs[i + 1], rollout.t[i] + 1)
            if rollout.terminated[end] or rollout.truncated[end]:
                self._advance(slot, None, 0)  # its last observation stays where it is
            begin = end + 1

    def _advance(self, slot: int, row: NDArray[Any] | None, t: int) -> None:
        self.head[slot] += 1
        here = self.head[slot] % self.size
        self.kind[slot, here], self.t[slot, here] = LAST, t
        if row is not None:
            self.rows[slot, here] = row

    def draw(self, count: int, generator: torch.Generator, steps: int = 1, gamma: float = 1.0) -> Batch:
        """`count` transitions, uniformly and with replacement, each over as many as `steps` steps: fewer at an
        episode's end and before the newest observation. ValueError if there is none yet."""
        filled = np.minimum(self.head, self.size - 1)
        ends = np.cumsum(filled)
        if not filled.any():
            raise ValueError("the replay memory holds no transition yet")
        drawn: list[NDArray[np.int64]] = []
        missing = count
        while missing > 0:
            index = torch.randint(int(ends[-1]), (missing + 8,), generator=generator).numpy()
            slot = np.searchsorted(ends, index, side="right")
            place = self.head[slot] - 1 - (index - (ends[slot] - filled[slot]))  # before the newest one
            back = np.minimum(self.stack - 1, self.t[slot, place % self.size])
            whole = place - back > self.head[slot] - self.size  # nothing of its stack is overwritten
            good = (self.kind[slot, place % self.size] != LAST) & whole
            drawn.append(np.stack((slot[good], place[good]))[:, :missing])
            missing -= drawn[-1].shape[1]
        slot, place = np.concatenate(drawn, axis=1)
        return self._batch(slot, place, steps, gamma)

    def latest(self, slot: int) -> Batch | None:
        """The steps, in their order, of the slot's episode that ended last; None if its beginning is overwritten, or no
        episode has just ended."""
        last = int(self.head[slot]) - 1  # its last observation
        if last < 1 or self.kind[slot, last % self.size] != LAST:
            return None
        first = last - int(self.t[slot, last % self.size])
        if first <= self.head[slot] - self.size or first == last:
            return None
        places = np.arange(first, last)
        return self._batch(np.full(len(places), slot), places, 1, 1.0)

    def _batch(self, slot: NDArray[np.int64], place: NDArray[np.int64], steps: int, gamma: float) -> Batch:
        here = place % self.size
        ahead = (place[:, None] + np.arange(steps)) % self.size
        kinds = self.kind[slot[:, None], ahead]
        # A step counts if all before it went on: a sum ends with an episode, however it ended.
        counts = np.logical_and.accumulate(np.insert(kinds[:, :-1] == STEP, 0, True, axis=1), axis=1) & (kinds != LAST)
        taken = counts.sum(1)
        weights = (gamma ** np.arange(steps) * counts).astype(np.float32)
        ended = (counts & (kinds == END)).any(1)
        window = np.arange(1 - self.stack, 1)
        after = window + taken[:, None] if steps > 1 else np.ones((len(place), 1), np.int64)
        offsets = np.concatenate((np.broadcast_to(window, (len(place), self.stack)), after), axis=1)
        places = place[:, None] + np.maximum(offsets, -self.t[slot, here][:, None])
        return Batch(
            self.rows[slot[:, None], places % self.size],
            torch.from_numpy(self.actions[slot, here]),
            torch.from_numpy((self.rewards[slot[:, None], ahead] * weights).sum(1)),
            torch.from_numpy(np.where(ended, 0, gamma ** (taken - 1)).astype(np.float32)),
        )

    # On disk

    def commit(self, folder: Path) -> dict[str, Any]:
        """Write what came since the last call as segments and return the JSON-able manifest of all that is
        needed; files that are needed no more are deleted by `tidy`, once a checkpoint holds the manifest."""
        folder.mkdir(parents=True, exist_ok=True)
        for slot in range(self.slots):
            if self.head[slot] == self._saved[slot]:
                continue
            first = max(self._saved[slot], self.head[slot] + 1 - self.size)
            places = np.arange(first, self.head[slot] + 1)
            segment = _Segment.of(slot, int(first), len(places))
            arrays = {key: getattr(self, key)[slot, places % self.size] for key in ARRAYS}
            with files.writing(folder / segment.name) as file:
                np.savez(file, allow_pickle=False, **arrays)
            self._segments.append(segment)
            self._saved[slot] = self.head[slot]  # the newest place is still open: it is written again
        oldest = self.head + 1 - self.size
        gone = [s.name for s in self._segments if s.first + s.count <= oldest[s.slot]]
        self._dropped += gone
        self._segments = [s for s in self._segments if s.name not in gone]
        return {"head": self.head.tolist(), "segments": [vars(segment) for segment in self._segments]}

    def tidy(self, folder: Path) -> None:
        """Delete the segments that the latest manifest doesn't name."""
        for name in self._dropped:
            (folder / name).unlink(missing_ok=True)
        self._dropped = []

    def load(self, folder: Path, manifest: dict[str, Any]) -> None:
        """Undo of `commit`; files that the manifest doesn't name are deleted. UserError if one is missing, or none that
        `commit` wrote."""
        if folder.is_symlink():
            raise UserError(f"{folder} is a link: a replay memory's files lie in their run's own folder")
        try:
            head = np.array(manifest["head"], np.int64).reshape(len(manifest["head"]))
            self._segments = [_Segment(**values) for values in manifest["segments"]]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"what the checkpoint says of its replay memory is damaged: {error}") from error
        if len(head) and not 0 <= head.min() <= head.max() <= FURTHEST:
            raise UserError(f"what the checkpoint says of its replay memory is damaged: its newest places are {head}")
        self._allocate(len(head))
        self.head = head
        if strange := [segment for segment in self._segments if not segment.fits(self.head)]:
            raise UserError(f"the checkpoint names a file that is none of a replay memory's: {strange[0]}")
        self._saved = self.head.copy()
        there = np.zeros_like(self.kind, np.bool_)
        for segment in self._segments:
            try:
                with npz(folder / segment.name) as file:
                    there[segment.slot, self._take_in(segment, file)] = True
            except (ValueError, KeyError) as error:
                raise UserError(f"the replay memory's file {folder / segment.name} can't be read: {error}") from error
        for slot in range(self.slots):
            if why := self._fault(slot, there[slot]):
                raise UserError(f"the replay memory in {folder} is damaged: {why}")
        named = {segment.name for segment in self._segments}
        for path in folder.glob("*.npz*"):
            if path.name not in named:
                path.unlink()

    def _take_in(self, segment: _Segment, file: Npz) -> NDArray[np.int64]:
        """Read a segment; returns where in the ring it lies. ValueError if its arrays are not this memory's."""
        ours = {key: getattr(self, key) for key in ARRAYS}
        for key, array in ours.items():
            values = file.announced[key]
            if (values.dtype, values.shape) != (array.dtype, (segment.count, *array.shape[2:])):
                raise ValueError(f"{key} is {values.dtype} {list(values.shape)}")
        where = np.arange(segment.first, segment.first + segment.count)
        inside = where > self.head[segment.slot] - self.size
        for key, array in ours.items():
            values = file.read(key)
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise ValueError(f"{key} holds numbers that are not finite")
            array[segment.slot, where[inside] % self.size] = values[inside]
        taken: NDArray[np.int64] = where[inside] % self.size
        return taken

    def _fault(self, slot: int, there: NDArray[np.bool_]) -> str:
        """In words, why a slot's places are none that `add` filled; empty if they are. `there` [size]: which were
        read."""
        head = int(self.head[slot])
        places = np.arange(max(0, head + 1 - self.size), head + 1) % self.size if head else np.arange(0)
        if not there[places].all():
            return f"of slot {slot} {(~there[places]).sum()} of {len(places)} observations are missing"
        kind, t = self.kind[slot, places], self.t[slot, places]
        goes_on, follows = kind[:-1] != LAST, np.where(kind[:-1] == LAST, 0, t[:-1] + 1)
        known = (kind <= END).all() and (t >= 0).all() and (kind[-1:] == LAST).all()
        ended = (kind[1:] == LAST)[kind[:-1] == END].all() and goes_on[1:][~goes_on[:-1]].all()
        return "" if known and ended and (t[1:] == follows).all() else f"slot {slot} holds no steps of episodes"
