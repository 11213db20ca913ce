"""A gymnasium vector environment that keeps several simulators in each worker process.

gymnasium's `AsyncVectorEnv` runs one process per environment; here `num_envs` is a setting of the
experiment (it fixes the batches that the networks see) while the number of processes is the
machine's business and changes no bit (`rrl.envs.workers`).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from rrl.envs.base import OPTIONAL, EnvFactory, FrameRequest, SimEnv
from rrl.envs.workers import Buffers, Pending, Raw, Simulators, Work, Worker, context, view
from rrl.registry import MachineError, UserError

DEATHS = 3
"""So many deaths of workers in one update are no accident."""


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
        self.deaths = 0
        """Workers that were replaced since the caller last set it to 0."""
        self._buffers: Buffers = {}
        raw: Raw = {}
        for name, (shape, dtype) in layout.items():
            size = num_envs * int(np.prod(shape)) * np.dtype(dtype).itemsize
            # RawArray is anonymous shared memory: the kernel frees it even after kill -9.
            memory = context.RawArray("b", size) if workers else bytearray(size)
            raw[name] = (memory, (num_envs, *shape), np.dtype(dtype).str)
            self._buffers[name] = view(raw[name])
        self._local = None if workers else Simulators(factory, frames, range(num_envs), self._buffers)
        self._workers = [  # any run of neighbouring slots is spread over all workers
            Worker(w, factory, frames, range(w, num_envs, workers), raw, self._died) for w in range(workers)
        ]
        for worker in self._workers:
            worker.built()

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
            pending.answers[0] = self._local.do(command, jobs_of(range(self.num_envs)))
            return pending
        for w, worker in enumerate(self._workers):
            if jobs := jobs_of(worker.slots):
                stepping = jobs if command == "step" else []
                actions = {slot: self._buffers["action"][slot].copy() for slot in stepping}
                pending.missing.add(w)
                worker.send(Work(pending, command, jobs, actions))
        return pending

    def wait(self, pending: Pending) -> list[Any]:
        """The answers to what was sent, in the workers' order, once all are there. MachineError if workers die again
        and again."""
        for w in sorted(pending.missing):
            while w in pending.missing:  # earlier work of this worker is answered first
                first, answer = self._workers[w].answer()
                first.missing.discard(w)
                first.answers[w] = answer
        return [pending.answers[w] for w in sorted(pending.answers)]

    def _died(self, how: str, steps: int) -> None:
        self.deaths += 1
        if self.deaths >= DEATHS:
            raise MachineError(f"environment workers ended {self.deaths} times in one update, the last one {how}")
        warnings.warn(f"an environment worker ended ({how}): replaced, and {steps:,} steps made again", stacklevel=2)

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the workers; gymnasium's `close` calls this once."""
        if self._local is not None:
            self._local.do("close", [])
        for worker in self._workers:
            worker.close()
        for worker in self._workers:
            worker.join()


def has(env: SimEnv, method: str) -> bool:
    """Has it a method of its own? gymnasium's base class has some that only raise."""
    return getattr(type(env), method, None) not in (None, getattr(gymnasium.Env, method, None))
