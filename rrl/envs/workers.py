"""The worker processes of the vector environment, and how one that died is replaced with the same numbers.

Workers share one GL context among their environments and write frames straight into shared memory. They never import
torch, and they end with their parent: a closed pipe stops them.
"""

from __future__ import annotations

import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from rrl.envs.base import OPTIONAL, EnvFactory, FrameRequest, SimEnv
from rrl.machine import plugin_faults
from rrl.machine.processes import safe_path
from rrl.registry import MachineError, UserError

Buffers = dict[str, NDArray[Any]]
Raw = dict[str, tuple[Any, tuple[int, ...], str]]
"""Of each buffer its memory, shape and type."""

CHANGES = {"dress", "show", "set_state"}
"""Optional methods of an environment after which it goes on otherwise."""
READS = set(OPTIONAL) - CHANGES
DIED = EOFError, ConnectionError
LOOK = 10.0
"""Seconds between two looks at a worker that doesn't answer."""
STILL = 600.0
"""Seconds that a worker may take for an answer without using the processor."""

# forkserver: workers inherit neither threads nor GL or CUDA state of this process.
context = get_context("forkserver")


@dataclass(eq=False)
class Pending:
    """Work that was sent to the environments; `WorkerVectorEnv.wait` collects its answers."""

    missing: set[int] = field(default_factory=set)
    """Workers that have not answered yet."""
    answers: dict[int, Any] = field(default_factory=dict)
    """Answers by worker."""


@dataclass(frozen=True)
class Work:
    """What a worker was sent."""

    pending: Pending
    command: str
    jobs: list[Any]
    actions: dict[int, NDArray[np.float32]]
    """Of a step, by slot."""

    def calls(self) -> list[tuple[int, str, tuple[Any, ...]]]:
        """(slot, method, arguments) of each call of an environment."""
        if self.command == "step":
            return [(slot, "step", (self.actions[slot],)) for slot in self.jobs]
        if self.command == "reset":
            return [(slot, "reset", (seed, initial)) for slot, seed, initial in self.jobs]
        return [(slot, self.command, tuple(args)) for slot, args in self.jobs]


class Journal:
    """All that decides where the environment of a slot stands: from its last beginning on, which its seed decides."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def add(self, method: str, args: tuple[Any, ...]) -> None:
        """One more call, that has been answered."""
        if method in READS:
            return
        if method == "set_state" or (method == "reset" and args[0] is not None):
            self.calls = [call for call in self.calls if call[0] == "dress"][-1:]  # looks stay as they are
        elif method == "show":  # it draws all anew: playing back a recording must not make the journal longer
            looks = [call for call in self.calls if call[0] == "dress"][-1:]
            self.calls = [call for call in self.calls if call[0] not in ("dress", "show")] + looks
        self.calls.append((method, args))


class Worker:
    """A process that keeps the environments of some slots. Does what it is sent in order; one that died, or stands
    still, is replaced, and its running episodes are done again from where they began."""

    def __init__(
        self,
        number: int,
        factory: EnvFactory,
        frames: FrameRequest | None,
        slots: range,
        raw: Raw,
        died: Callable[[str, int], None],
    ) -> None:
        """`died` is told of a death, and of how many steps are made again, before the worker is replaced; what it
        raises ends that."""
        self.slots = slots
        self.died = died
        self._name = f"rrl-env-{number}"
        self._made_of = factory, frames, slots, raw
        self._unanswered: deque[Work] = deque()
        self._journals = {slot: Journal() for slot in slots}
        self._start()

    def built(self) -> None:
        """Wait until the environments are there. UserError or RuntimeError: why they are not."""
        try:
            self._receive()
        except DIED:
            raise MachineError(f"an environment worker ended as it was starting: {self._death()}") from None

    def send(self, work: Work) -> None:
        """Have this done after all that was sent before."""
        self._unanswered.append(work)
        self._put(work.command, work.jobs)

    def answer(self) -> tuple[Pending, Any]:
        """The answer to what was sent first, as soon as it is there. MachineError if replacing doesn't help."""
        while True:
            try:
                value = self._receive()
                break
            except DIED:
                self._replace()
        work = self._unanswered.popleft()
        for slot, method, args in work.calls():
            self._journals[slot].add(method, args)
        return work.pending, value

    def close(self) -> None:
        """A worker leaves when its pipe ends."""
        self._pipe.close()

    def join(self) -> None:
        """Wait for its end."""
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()

    def _start(self) -> None:
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, *self._made_of), daemon=True, name=self._name)
        with safe_path():  # the first one starts multiprocessing's server
            self._process.start()
        there.close()

    def _replace(self) -> None:
        """Begin another process, and bring it to where this one was."""
        while True:
            steps = sum(call[0] == "step" for journal in self._journals.values() for call in journal.calls)
            self.died(self._death(), steps)
            self.close()
            self._start()
            try:
                self._receive()  # built
                self._put("replay", [(slot, journal.calls) for slot, journal in self._journals.items()])
                self._receive()
            except DIED:
                continue
            for work in self._unanswered:
                self._put(work.command, work.jobs)
            return

    def _put(self, command: str, jobs: Sequence[Any]) -> None:
        with suppress(*DIED):  # its answer will be missing
            self._pipe.send((command, jobs))

    def _receive(self) -> Any:
        """An answer; one of `DIED` if there will be none."""
        looks, used, since = 0, -1.0, time.monotonic()
        while not self._pipe.poll(LOOK):
            try:
                process = psutil.Process(self._process.pid)
                spent, stopped = sum(process.cpu_times()[:2]), process.status() == psutil.STATUS_STOPPED
            except psutil.Error:  # it ended: the pipe tells
                continue
            looks = looks + 1 if stopped else 0
            if spent != used:
                used, since = spent, time.monotonic()
            if looks > 1 or time.monotonic() - since > STILL:
                self._process.kill()
                raise EOFError
        status, value = self._pipe.recv()
        if status == "user":
            raise UserError(value)
        if status == "fault":
            raise RuntimeError(f"an environment worker failed:\n{value}")
        return value

    def _death(self) -> str:
        """How the process ended, in words."""
        self._process.join(timeout=5)
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"exit code {code}"
        return f"killed by {signal.Signals(-code).name}" + (" (out of memory?)" if code == -signal.SIGKILL else "")


class Simulators:
    """The environments of one process and what can be asked of them."""

    def __init__(self, factory: EnvFactory, frames: FrameRequest | None, slots: range, buffers: Buffers) -> None:
        self.buffers = buffers
        self.flags = factory.flags
        self.envs: dict[int, SimEnv] = {}
        for slot in slots:
            self.envs[slot] = env = factory.make_one(frames)
            if frames is not None and hasattr(env, "frame_buffer"):
                env.frame_buffer = buffers["frames"][slot]

    def do(self, command: str, jobs: Sequence[Any]) -> list[tuple[int, Any]]:
        """One command for some slots; answers of methods by slot."""
        if command == "step":
            for slot in jobs:
                self._step(slot)
            return []
        if command == "reset":
            for slot, seed, initial in jobs:
                self._call(slot, "reset", (seed, initial))
            return []
        if command == "replay":
            for slot, calls in jobs:
                for method, args in calls:
                    self._call(slot, method, args)
            return []
        if command == "close":
            for env in self.envs.values():
                env.close()
            return []
        return [(slot, self._call(slot, command, args)) for slot, args in jobs]

    def _call(self, slot: int, method: str, args: tuple[Any, ...]) -> Any:
        """Call a method; what changes the observation answers nothing else."""
        env = self.envs[slot]
        if method == "reset":
            seed, initial = args
            options = None if initial is None else {"initial": initial}
            return self._observed(slot, env.reset(seed=seed, options=options)[0])
        value = getattr(env, method)(*args)
        if method == "step":
            return self._observed(slot, value[0])
        return self._observed(slot, value) if method in ("show", "set_state") else value

    def _observed(self, slot: int, observation: dict[str, NDArray[Any]]) -> None:
        out = self.buffers
        out["state"][slot] = observation["state"]
        if "frames" in out and observation["frames"] is not getattr(self.envs[slot], "frame_buffer", None):
            out["frames"][slot] = observation["frames"]

    def _step(self, slot: int) -> None:
        out = self.buffers
        begun = time.perf_counter()
        observation, reward, terminated, truncated, info = self.envs[slot].step(out["action"][slot])
        self._observed(slot, observation)
        out["reward"][slot] = reward
        out["terminated"][slot] = terminated
        out["truncated"][slot] = truncated
        out["flags"][slot] = [info[flag] for flag in self.flags]
        out["seconds"][slot] = getattr(self.envs[slot], "seconds", None) or (time.perf_counter() - begun, 0.0)


def view(raw: tuple[Any, tuple[int, ...], str]) -> NDArray[Any]:
    """A buffer as an array."""
    memory, shape, dtype = raw
    return np.frombuffer(memory, dtype=dtype).reshape(shape)


def _serve(pipe: Connection, factory: EnvFactory, frames: FrameRequest | None, slots: range, raw: Raw) -> None:
    """Worker: build the environments, then answer commands until the pipe ends."""
    # These often reach the whole process group; the parent decides what happens then.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        envs = Simulators(factory, frames, slots, {name: view(entry) for name, entry in raw.items()})
        pipe.send(("ok", None))
        while True:
            command, jobs = pipe.recv()
            pipe.send(("ok", envs.do(command, jobs)))
    except DIED:
        pass  # the parent closed the pipe or died
    except Exception as error:
        mistake = str(error) if isinstance(error, UserError) else plugin_faults.told(error)
        told = ("fault", traceback.format_exc()) if mistake is None else ("user", mistake)
        with suppress(*DIED):  # another worker's was told already
            pipe.send(told)
