"""From environments to actions: the only place where observations are stacked, observed and acted on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl.envs.base import FrameRequest
from rrl.registry import UserError
from rrl.rollout.data import Obs, Policy

Arrays = dict[str, NDArray[Any]]
Place = Callable[[int], str]
"""Row of a batch -> where it comes from, in words: `adroit_door, step 3 of the episode with seed 12`."""
MOST_REWARD = float(np.sqrt(np.finfo(np.float32).max))
"""Losses hold squares in float32, which end here."""


def check_finite(
    values: NDArray[Any], place: Place, name: Callable[[int], str], remedy: str, most: float = np.inf
) -> None:
    """UserError for the first row of `values` [N, n] with NaN, an infinity or a size of `most` and beyond, at which
    nothing could be learnt; `name` says what a column is."""
    if (np.abs(values) < most).all():
        return
    row, column = np.argwhere(~(np.abs(values) < most))[0].tolist()
    raise UserError(f"{place(row)}: {name(column)} is {values[row, column]:g}\n  {remedy}")


def check_rewards(rewards: NDArray[np.float64], place: Place) -> None:
    """UserError for rewards [N] that are no finite numbers, or too large to learn from."""
    remedy = f"mend the environment: rewards must be finite, and below {MOST_REWARD:.1e} to be squared in float32"
    check_finite(rewards[:, None], place, lambda _: "the reward", remedy, MOST_REWARD)


def check_actions(policy: Policy, actions: NDArray[np.float32], place: Place) -> None:
    """UserError for actions [N, m], chosen at these places, that are not finite."""
    name = type(policy).__name__
    remedy = f"what {name} learnt has diverged: lower its learning rates"
    check_finite(actions, place, lambda i: f"action[{i}], which {name} chose then,", remedy)


class Stack:
    """The latest `depth` rows of some slots; an episode's first row fills all places, as in DQN."""

    def __init__(self, slots: int, depth: int) -> None:
        self.depth = depth
        self.rows: NDArray[Any] | None = None
        self.slots = slots

    def push(self, rows: NDArray[Any], fresh: NDArray[np.bool_], moved: NDArray[np.bool_]) -> NDArray[Any]:
        """Take in [N, ..., c]: `fresh` slots begin an episode, `moved` ones go on, the others keep what they
        have. Returns [N, ..., c * depth], oldest first: a copy unless the depth is 1."""
        if self.depth == 1:
            return rows
        if self.rows is None:
            self.rows = np.zeros((self.slots, self.depth, *rows.shape[1:]), rows.dtype)
        self.rows[moved, :-1] = self.rows[moved, 1:]
        self.rows[moved, -1] = rows[moved]
        self.rows[fresh] = rows[fresh, None]
        return np.concatenate([self.rows[:, k] for k in range(self.depth)], axis=-1)


class Slots:
    """What a policy saw last in N environments that it acts in together: one batch of encoder and policy.

    Pictures are stacked as deep as the encoder asks for (`FrameRequest.stack`), `Policy.observe` makes a row of
    each observation, and `Policy.act` gets the latest `Policy.stack` rows. The policy comes with each call: it
    learns, while what it saw stays.
    """

    def __init__(self, count: int, frames: FrameRequest | None, stack: int = 1) -> None:
        """`frames` is what the environments render, `stack` the policy's; 1 for whoever only looks."""
        self.count = count
        # Checkpoints know these names.
        self._stacks = {"frames": Stack(count, frames.stack if frames else 1), "kept": Stack(count, stack)}
        self.observed: NDArray[Any] = np.zeros(0, np.float32)
        """[N, n]: what `Policy.observe` made of the last observation."""
        self._seen = self.observed

    @property
    def remembers(self) -> bool:
        """Do actions depend on more than the last observation?"""
        return any(stack.depth > 1 for stack in self._stacks.values())

    def look(
        self,
        policy: Policy,
        observation: Mapping[str, NDArray[Any]],
        fresh: NDArray[np.bool_],
        moved: NDArray[np.bool_],
        place: Place = "row {}".format,
    ) -> NDArray[Any]:
        """Take in all slots' `state` [N, p] and, if they render, `frames` [N, H, W, 3 * cameras]; returns `observed`.

        `fresh` [N] slots begin an episode with this observation, `moved` ones made a step. The others stay in the
        batch, since rounding depends on its shape, and what they remember does not change. UserError, with the slot's
        `place`, for states and features that are not finite.
        """
        live = np.flatnonzero(fresh | moved)

        def check(values: NDArray[Any], name: Callable[[int], str], remedy: str) -> None:
            check_finite(values[live], lambda row: place(int(live[row])), name, remedy)

        check(observation["state"], "state[{}]".format, "mend the environment: its states must be finite in float32")
        frames = None
        if "frames" in observation:
            frames = self._stacks["frames"].push(observation["frames"], fresh, moved)
        self.observed = policy.observe(Obs(frames, observation["state"]))
        if self.observed.dtype.kind == "f":  # else the bytes of pictures and of the state
            name = getattr(policy, "column", f"number {{}} of {type(policy).__name__}.observe".format)
            check(
                self.observed, name, "see that the encoder's weights are whole, and try Experiment.precision = 'fp32'"
            )
        self._seen = self._stacks["kept"].push(self.observed, fresh, moved)
        return self.observed

    def act(self, policy: Policy, noise: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Actions [N, m] for what was seen last, not clipped; `noise` [N, m] as in `Policy.act`. UserError for other
        actions: numpy would broadcast a column over all of an environment's actions."""
        actions: Any = policy.act(self._seen, noise)
        shape = noise.shape if noise is not None else (self.count, *np.shape(actions)[1:])
        if not isinstance(actions, np.ndarray) or actions.dtype != np.float32 or actions.shape != shape:
            got = f"{actions.dtype} {list(actions.shape)}" if hasattr(actions, "shape") else type(actions).__name__
            raise UserError(f"{type(policy).__name__}.act must return an array of float32 {list(shape)}; got {got}")
        return actions

    def snapshot(self) -> Arrays:
        """Arrays from which `restore` continues bit for bit."""
        stacks = {f"stack.{name}": stack.rows for name, stack in self._stacks.items() if stack.rows is not None}
        return {"observed": self.observed, "seen": self._seen, **stacks}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Undo of `snapshot`; other arrays among these are left alone."""
        self.observed, self._seen = arrays["observed"].copy(), arrays["seen"].copy()
        for name, stack in self._stacks.items():
            stack.rows = arrays[f"stack.{name}"].copy() if f"stack.{name}" in arrays else None
