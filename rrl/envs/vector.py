"""A gymnasium vector environment that keeps several simulators in each worker process.

gymnasium's `AsyncVectorEnv` runs one process per environment; here `num_envs` is a setting of the
experiment (it fixes the batches that the networks see) while the number of processes is the
machine's business and changes no bit. Workers share one GL context among their environments and write
frames straight into shared memory. They never import torch, and they end with their parent: a closed pipe
stops them.
"""

from __future__ import annotations

import signal
import time
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from rrl.envs.base import OPTIONAL, EnvFactory, FrameRequest, SimEnv
from rrl.machine.processes import safe_path
from rrl.registry import UserError

Buffers = dict[str, NDArray[Any]]
DEAD = "an environment worker died (killed, or out of memory?)"


@dataclass(eq=False)
class Pending:
    """Work that was sent to the environments; `WorkerVectorEnv.wait` collects its answers."""

    missing: set[int] = field(default_factory=set)
    """Workers that have not answered yet."""
    answers: dict[int, Any] = field(default_factory=dict)
    """Answers by worker."""


class WorkerVectorEnv(VectorEnv[dict[str, NDArray[Any]], NDArray[np.float32], NDArray[Any]]):
    """`num_envs` environments of one factory in `workers` processes (0: all in this one).

    Observations are views of the shared buffers: `state` float32 [N, p] and `frames` uint8
    [N, H, W, 3 * cameras]; they change with the next step, so copy what must last. There is no autoreset:
    reset finished slots with `reset(seed=[...], options={"reset_mask": mask})`.

    `begin_step` and `wait` are the two halves of `step`: between them, this process can do something else,
    such as stepping other slots. Workers do what they are sent in order.
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012 (gymnasium's own declaration)

    def __init__(self, factory: EnvFactory, num_envs: int, frames: FrameRequest | None, workers: int) -> None:
        self.num_envs = num_envs
        self.factory = factory
        self.frames = frames
        # The spaces come from an environment that renders nothing: this process needs no GL context.
        probe = factory.make_one(None)
        spaces = dict(probe.observation_space.spaces)
        if frames is not None:
            picture = (frames.size, frames.size, 3 * len(factory.cameras))
            spaces["frames"] = gymnasium.spaces.Box(0, 255, picture, np.uint8)
        self.single_observation_space = gymnasium.spaces.Dict(spaces)
        self.single_action_space = probe.action_space
        self._lacks = {name for name in OPTIONAL if not has(probe, name)}
        self._renderer = "" if has(probe, "renderer") else f"{type(probe).__name__} itself"
        probe.close()
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)

        layout: dict[str, tuple[tuple[int, ...], Any]] = {
            "action": (tuple(self.single_action_space.shape or ()), np.float32),
            "reward": ((), np.float64),
            "terminated": ((), np.bool_),
            "truncated": ((), np.bool_),
            "flags": ((len(factory.flags),), np.bool_),
            "seconds": ((2,), np.float64),
            **{name: (space.shape, space.dtype) for name, space in spaces.items()},
        }
        self.workers = workers = min(workers, num_envs)
        # forkserver: workers inherit neither threads nor GL or CUDA state of this process.
        context = get_context("forkserver")
        self._buffers: Buffers = {}
        raw: dict[str, tuple[Any, tuple[int, ...], str]] = {}
        for name, (shape, dtype) in layout.items():
            size = num_envs * int(np.prod(shape)) * np.dtype(dtype).itemsize
            # RawArray is anonymous shared memory: the kernel frees it even after kill -9.
            memory = context.RawArray("b", size) if workers else bytearray(size)
            raw[name] = (memory, (num_envs, *shape), np.dtype(dtype).str)
            self._buffers[name] = _view(raw[name])

        self._local: _Slots | None = None
        self._pipes: list[Connection] = []
        self._unanswered: list[deque[Pending]] = [deque() for _ in range(workers)]
        self._slots_of: list[range] = []
        self._processes = []
        if not workers:
            self._local = _Slots(factory, frames, range(num_envs), self._buffers)
            self._slots_of = [range(num_envs)]
        for w in range(workers):
            slots = range(w, num_envs, workers)  # any run of neighbouring slots is spread over all workers
            here, there = context.Pipe()
            process = context.Process(
                target=_serve, args=(there, factory, frames, slots, raw), daemon=True, name=f"rrl-env-{w}"
            )
            with safe_path():  # the first one starts multiprocessing's server
                process.start()
            there.close()
            self._processes.append(process)
            self._pipes.append(here)
            self._slots_of.append(slots)
        for pipe in self._pipes:
            _answer(pipe)  # built, or the reason why not

    @property
    def state_dim(self) -> int:
        """Length of the state vector p."""
        return int(self.single_observation_space["state"].shape[0])  # type: ignore[index]

    @property
    def action_dim(self) -> int:
        """Length of the action vector m."""
        return int(self.single_action_space.shape[0])  # type: ignore[index]

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Reset the slots in `options["reset_mask"]` (all without one); other slots' observations stay.

        `seed` is one int per slot (or one for all: slot j gets seed + j). `options["initial"]` may list,
        per slot, an initial state from `initial()` to start from, or None.
        """
        options = options or {}
        mask = options.get("reset_mask", np.ones(self.num_envs, bool))
        initial = options.get("initial", [None] * self.num_envs)
        if any(start is not None for start in initial):
            self.need("initial")
        seeds = [seed + j for j in range(self.num_envs)] if isinstance(seed, int) else seed
        jobs = [(j, None if seeds is None else seeds[j], initial[j]) if mask[j] else None for j in range(self.num_envs)]
        self._everywhere("reset", lambda slots: [jobs[j] for j in slots if jobs[j] is not None])
        return self.observation(), {}

    def step(
        self, actions: NDArray[np.float32], active: NDArray[np.bool_] | None = None
    ) -> tuple[dict[str, NDArray[Any]], NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """One step of every slot, or of the `active` ones. Info: `flags` bool [N, F] in the factory's order. How
        long it took is among the `results`."""
        active = np.ones(self.num_envs, bool) if active is None else active
        self.wait(self.begin_step(actions, active))
        buffers = self._buffers
        ends = buffers["terminated"], buffers["truncated"]
        return self.observation(), buffers["reward"], *ends, {"flags": buffers["flags"]}

    def begin_step(self, actions: NDArray[np.float32], active: NDArray[np.bool_]) -> Pending:
        """Start a step of the `active` slots with `actions` [N, m] (other rows are not read)."""
        self._buffers["action"][active] = actions[active]
        self._buffers["seconds"][active] = 0.0
        return self._send("step", lambda slots: [j for j in slots if active[j]])

    def results(self) -> Buffers:
        """Views of `reward`, `terminated`, `truncated`, `flags` [N, F] and `seconds` [N, 2] (simulating,
        rendering) of each slot's last step."""
        return {name: self._buffers[name] for name in ("reward", "terminated", "truncated", "flags", "seconds")}

    def call(self, name: str, *args: Any) -> tuple[Any, ...]:
        """Call a method of every environment with the same arguments; results in slot order."""
        return self.call_each(name, [args] * self.num_envs)

    def call_each(self, name: str, args: Sequence[tuple[Any, ...] | None]) -> tuple[Any, ...]:
        """Call a method with each slot's own arguments; slots whose entry is None are left alone. UserError if it
        is one that these environments lack."""
        self.need(name)
        answers = self._everywhere(name, lambda slots: [(j, args[j]) for j in slots if args[j] is not None])
        by_slot = {slot: value for answer in answers for slot, value in answer}
        return tuple(by_slot.get(j) for j in range(self.num_envs))

    def need(self, method: str) -> None:
        """UserError if these environments lack an optional method of `SimEnv`."""
        if method in self._lacks:
            cannot = f"{self.factory.name} cannot {OPTIONAL[method]}"
            raise UserError(f"{cannot}: its simulator has no method `{method}`")

    def renderer(self) -> str:
        """What draws the pictures, as the environment's driver names it."""
        first: list[tuple[Any, ...] | None] = [(), *[None] * (self.num_envs - 1)]
        return self._renderer or str(self.call_each("renderer", first)[0])

    def observation(self) -> dict[str, NDArray[Any]]:
        """The current observation buffers (views)."""
        return {name: self._buffers[name] for name in self.single_observation_space}  # type: ignore[attr-defined]

    def _everywhere(self, command: str, jobs_of: Any) -> list[Any]:
        return self.wait(self._send(command, jobs_of))

    def _send(self, command: str, jobs_of: Any) -> Pending:
        pending = Pending()
        if self._local is not None:
            pending.answers[0] = self._local.do(command, jobs_of(self._slots_of[0]))
            return pending
        for w, (pipe, slots) in enumerate(zip(self._pipes, self._slots_of, strict=True)):
            jobs = jobs_of(slots)
            if jobs:
                try:
                    pipe.send((command, jobs))
                except (BrokenPipeError, ConnectionResetError):
                    raise RuntimeError(DEAD) from None
                pending.missing.add(w)
                self._unanswered[w].append(pending)
        return pending

    def wait(self, pending: Pending) -> list[Any]:
        """The answers to what was sent, in the workers' order, once all are there."""
        for w in sorted(pending.missing):
            while w in pending.missing:  # earlier work of this worker is answered first
                first = self._unanswered[w].popleft()
                first.missing.discard(w)
                first.answers[w] = _answer(self._pipes[w])
        return [pending.answers[w] for w in sorted(pending.answers)]

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the workers; gymnasium's `close` calls this once."""
        if self._local is not None:
            self._local.do("close", [])
        for pipe in self._pipes:
            pipe.close()  # a worker leaves when its pipe ends
        for process in self._processes:
            process.join(timeout=5)
            if process.is_alive():
                process.kill()


class _Slots:
    """The environments of one process and what can be asked of them."""

    def __init__(self, factory: EnvFactory, frames: FrameRequest | None, slots: range, buffers: Buffers) -> None:
        self.buffers = buffers
        self.flags = factory.flags
        self.envs: dict[int, SimEnv] = {}
        for slot in slots:
            self.envs[slot] = env = factory.make_one(frames)
            if frames is not None and hasattr(env, "frame_buffer"):
                env.frame_buffer = buffers["frames"][slot]

    def do(self, command: str, jobs: list[Any]) -> list[tuple[int, Any]]:
        if command == "step":
            for slot in jobs:
                self._step(slot)
            return []
        if command == "reset":
            for slot, seed, initial in jobs:
                options = None if initial is None else {"initial": initial}
                self._observed(slot, self.envs[slot].reset(seed=seed, options=options)[0])
            return []
        if command == "close":
            for env in self.envs.values():
                env.close()
            return []
        answers: list[tuple[int, Any]] = []
        for slot, args in jobs:
            value = getattr(self.envs[slot], command)(*args)
            if command in ("show", "set_state"):  # these change the observation
                self._observed(slot, value)
                value = None
            answers.append((slot, value))
        return answers

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


def has(env: SimEnv, method: str) -> bool:
    """Has it a method of its own? gymnasium's base class has some that only raise."""
    return getattr(type(env), method, None) not in (None, getattr(gymnasium.Env, method, None))


def _view(raw: tuple[Any, tuple[int, ...], str]) -> NDArray[Any]:
    memory, shape, dtype = raw
    return np.frombuffer(memory, dtype=dtype).reshape(shape)


def _serve(
    pipe: Connection, factory: EnvFactory, frames: FrameRequest | None, slots: range, raw: dict[str, Any]
) -> None:
    """Worker: build the environments, then answer commands until the pipe ends."""
    # These often reach the whole process group; the parent decides what happens then.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        envs = _Slots(factory, frames, slots, {name: _view(entry) for name, entry in raw.items()})
        pipe.send(("ok", None))
        while True:
            command, jobs = pipe.recv()
            pipe.send(("ok", envs.do(command, jobs)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent closed the pipe or died
    except UserError as error:
        pipe.send(("user", str(error)))
    except Exception:
        pipe.send(("fault", traceback.format_exc()))


def _answer(pipe: Connection) -> Any:
    try:
        status, value = pipe.recv()
    except (EOFError, ConnectionResetError):
        raise RuntimeError(DEAD) from None
    if status == "user":
        raise UserError(value)
    if status == "fault":
        raise RuntimeError(f"an environment worker failed:\n{value}")
    return value
