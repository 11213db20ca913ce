"""The collector: whole episodes of a policy in a vector environment."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl.envs.scene import Scene
from rrl.envs.vector import WorkerVectorEnv
from rrl.envs.workers import Pending
from rrl.registry import UserError
from rrl.rollout.data import Episode, Policy, Rollout
from rrl.rollout.effects import seen
from rrl.rollout.slots import Slots, check_actions, check_rewards

EachStep = Callable[[NDArray[np.int64], NDArray[np.int64]], None]


class Collector:
    """Runs episodes on a vector environment in `groups` of slots that take turns, so that one group is
    encoded while the others are simulated and rendered.

    A group advances in lockstep, encoding and acting in batches of constant shape: idle slots stay in the
    batch (their rows are ignored), since rounding depends on it. Slots take episodes in order; a slot
    whose episode ends takes the next one, the lowest slot first. Turns never depend on speed.
    """

    def __init__(self, envs: WorkerVectorEnv, groups: int = 1) -> None:
        self.envs = envs
        self.groups = min(groups, envs.num_envs)

    def on(self, envs: WorkerVectorEnv) -> Collector:
        """One that collects in the same way in other environments."""
        return Collector(envs, self.groups)

    def collect(
        self,
        policy: Policy,
        todo: Sequence[Episode],
        *,
        each_step: EachStep | None = None,
        progress: Callable[[int], None] | None = None,
        ended: Callable[[bool], None] | None = None,
        keep: bool = True,
    ) -> Rollout:
        """Run all episodes of `todo` with `policy`. Without `keep` the rollout has no observations ([T, 0]):
        an evaluation needs none, and pictures are large.

        `each_step(episode, t)` is called after every step of a group with, per slot, the running episode's
        index (-1: idle, or in another group) and its step count; `progress(n)` with the number of steps
        just made; `ended` with the success of each episode, by the first of the environment's flags, as it ends.
        """
        for episode in todo:
            if episode.actions is not None:
                check_width(episode.actions, self.envs)
        n = self.envs.num_envs
        bounds = [g * n // self.groups for g in range(self.groups + 1)]
        groups = [
            _Group(slice(a, b), np.full(b - a, -1), Slots(b - a, self.envs.frames, policy.stack))
            for a, b in pairwise(bounds)
        ]
        collection = _Collection(self.envs, policy, todo, keep, each_step, progress, ended)
        try:
            for group in groups:
                collection.begin(group)
            while any(group.active.any() for group in groups):
                for group in groups:
                    if group.active.any():
                        collection.advance(group)
        finally:
            collection.undress()
        return collection.result()


def check_width(actions: NDArray[Any], envs: WorkerVectorEnv) -> None:
    """UserError if recorded actions [L, m] are of another width than the environment's: numpy would broadcast some."""
    if actions.shape[1:] != (envs.action_dim,):
        raise UserError(
            f"an action of {envs.factory.name} is {envs.action_dim} numbers; the recorded ones are {actions.shape[-1]}"
        )


@dataclass
class _Group:
    """Neighbouring slots that act together: one batch of the encoder and of the policy."""

    slots: slice
    """Which ones of the vector environment."""
    running: NDArray[np.int64]
    """Per slot the index of its episode, -1: idle."""
    memory: Slots
    """What the policy saw in them."""
    step: Pending | None = None
    """The step that the environments are making."""
    begun: float = 0.0
    """Seconds that beginning it took: without worker processes, all of it."""

    @property
    def active(self) -> NDArray[np.bool_]:
        """Which slots have an episode."""
        return self.running >= 0

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(places in the group, indices of their episodes) of the active slots."""
        places = np.flatnonzero(self.active)
        return places, self.running[places]


class _Collection:
    """One collection under way. What episode i did in its step t stands at [i, t] of the padded arrays."""

    def __init__(
        self,
        envs: WorkerVectorEnv,
        policy: Policy,
        todo: Sequence[Episode],
        keep: bool,
        each_step: EachStep | None,
        progress: Callable[[int], None] | None,
        ended: Callable[[bool], None] | None,
    ) -> None:
        self.began = time.perf_counter()
        self.envs, self.policy, self.todo = envs, policy, todo
        self.keep, self.each_step, self.progress, self.ended = keep, each_step, progress, ended
        self.seconds = dict.fromkeys(("simulate", "render", "encode", "act"), 0.0)
        self.counts = dict.fromkeys(("encode", "act"), 0)
        self.upcoming = 0
        """The first episode that no slot has taken yet."""
        self.lengths = np.zeros(len(todo), np.int64)
        """Steps that each episode has made."""
        horizon = envs.factory.horizon
        size = len(todo), max(horizon if e.actions is None else len(e.actions) for e in todo)
        self.actions = np.zeros((*size, envs.action_dim), np.float32)
        self.flags = np.zeros((*size, len(envs.factory.flags)), bool)
        self.rewards, self.terminated, self.truncated = np.zeros(size), np.zeros(size, bool), np.zeros(size, bool)
        self.obs: NDArray[Any] | None = None
        self.final_obs: NDArray[Any] = np.zeros(0, np.float32)
        """These two are made when the first observation says how wide they are."""
        self.chosen = np.zeros((envs.num_envs, envs.action_dim), np.float32)
        self.worn = [Scene()] * envs.num_envs
        """How the pictures of each slot look."""

    def begin(self, group: _Group) -> None:
        """Give every slot of the group an episode, as far as there are any, and begin their first steps."""
        fresh = self.refill(group, ~group.active)
        self.observe(group, fresh, ~fresh)
        if self.obs is None:
            rows = group.memory.observed
            width = rows.shape[1] if self.keep else 0
            self.obs = np.zeros((*self.rewards.shape, width), rows.dtype)
            self.final_obs = np.zeros((len(self.todo), width), rows.dtype)
        if group.active.any():
            self.act(group)

    def refill(self, group: _Group, free: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Start the next episodes in the free slots; which slots of the group begin one?"""
        n = self.envs.num_envs
        mask = np.zeros(n, bool)
        seeds: list[int | None] = [None] * n
        initial: list[Any] = [None] * n
        scenes = self.worn.copy()
        group.running[free] = -1
        for place in np.flatnonzero(free)[: len(self.todo) - self.upcoming]:
            episode, slot = self.todo[self.upcoming], group.slots.start + place
            mask[slot], seeds[slot], initial[slot] = True, episode.seed, episode.initial
            scenes[slot] = episode.scene
            group.running[place] = self.upcoming
            self.upcoming += 1
        if mask.any():
            start = time.perf_counter()
            self.dress(scenes)
            self.envs.reset(seed=seeds, options={"reset_mask": mask, "initial": initial})
            self.seconds["simulate"] += time.perf_counter() - start
        return mask[group.slots]

    def dress(self, scenes: list[Scene]) -> None:
        """Let pictures look like these, of each slot. Before a reset, which shows the first one."""
        drawn, before = ([replace(each, effect=None) for each in every] for every in (scenes, self.worn))
        changed = [None if new == worn else (new,) for new, worn in zip(drawn, before, strict=True)]
        if any(changed):
            self.envs.call_each("dress", changed)
        self.worn = scenes

    def undress(self) -> None:
        """As nominally, for whoever uses the environments next."""
        self.dress([Scene()] * self.envs.num_envs)

    def observe(self, group: _Group, fresh: NDArray[np.bool_], moved: NDArray[np.bool_]) -> None:
        """Look at all slots of the group: `fresh` ones begin an episode, `moved` ones made a step."""
        start = time.perf_counter()
        observation = {name: values[group.slots] for name, values in self.envs.observation().items()}
        if self.envs.frames is not None:
            observation["frames"] = seen(observation["frames"], self.worn[group.slots])
        group.memory.look(self.policy, observation, fresh, moved, lambda place: self.moment(group.running[place]))
        self.seconds["encode"] += time.perf_counter() - start
        self.counts["encode"] += len(group.running)

    def act(self, group: _Group) -> None:
        """Choose the group's actions and let its environments begin the step."""
        start = time.perf_counter()
        places, index = group.pairs()
        t = self.lengths[index]
        noise = np.zeros((len(group.running), self.envs.action_dim), np.float32)
        for place, i in zip(places, index, strict=True):
            drawn = self.todo[i].noise
            if drawn is not None:
                noise[place] = drawn[self.lengths[i]]
        actions = group.memory.act(self.policy, noise)
        for place, i in zip(places, index, strict=True):
            script = self.todo[i].actions
            if script is not None:
                actions[place] = script[self.lengths[i]]
        check_actions(self.policy, actions[places], lambda row: self.moment(index[row]))
        if self.keep and self.obs is not None:
            self.obs[index, t] = group.memory.observed[places]
        self.actions[index, t] = actions[places]
        self.chosen[group.slots] = actions
        active = np.zeros(self.envs.num_envs, bool)
        active[group.slots] = group.active
        chosen_at = time.perf_counter()
        self.seconds["act"] += chosen_at - start
        self.counts["act"] += len(group.running)
        group.step = self.envs.begin_step(self.chosen, active)
        group.begun = time.perf_counter() - chosen_at

    def advance(self, group: _Group) -> None:
        """Take in the group's step, encode what it shows, and begin the next one."""
        places, index = group.pairs()
        ended = self.record(group)
        self.observe(group, np.zeros_like(group.active), group.active)
        done = np.zeros(len(group.running), bool)
        for place, i, over in zip(places, index, ended, strict=True):
            script = self.todo[i].actions
            done[place] = over if script is None else self.lengths[i] == len(script)
        if self.keep:
            self.final_obs[group.running[done]] = group.memory.observed[done]
        if self.each_step is not None:
            everywhere = np.full(self.envs.num_envs, -1)
            everywhere[group.slots] = group.running
            self.each_step(everywhere, np.where(everywhere >= 0, self.lengths[everywhere], 0))
        if self.ended is not None and self.flags.shape[2]:
            for i in group.running[done]:
                self.ended(bool(self.flags[i, : self.lengths[i], 0].sum() > self.envs.factory.score.steps))
        if self.progress is not None:
            self.progress(len(places))
        if done.any() and (fresh := self.refill(group, done)).any():
            self.observe(group, fresh, np.zeros_like(fresh))
        if group.active.any():
            self.act(group)

    def record(self, group: _Group) -> NDArray[np.bool_]:
        """Wait for the group's step and write down what came of it; whose episodes ended, of the active slots?"""
        places, index = group.pairs()
        assert group.step is not None
        start = time.perf_counter()
        self.envs.wait(group.step)
        waited = time.perf_counter() - start + group.begun
        results = {name: values[group.slots][places] for name, values in self.envs.results().items()}
        simulating, rendering = results["seconds"].sum(axis=0)
        share = rendering / max(simulating + rendering, 1e-12)
        self.seconds["render"] += waited * share
        self.seconds["simulate"] += waited * (1.0 - share)
        t = self.lengths[index]
        self.lengths[index] += 1
        check_rewards(results["reward"], lambda row: self.moment(index[row]))
        self.rewards[index, t] = results["reward"]
        self.flags[index, t] = results["flags"]
        self.terminated[index, t] = results["terminated"]
        self.truncated[index, t] = results["truncated"]
        ended: NDArray[np.bool_] = results["terminated"] | results["truncated"]
        return ended

    def moment(self, i: int) -> str:
        """Where episode i is now, in words."""
        return f"{self.envs.factory.name}, {self.todo[i].moment(int(self.lengths[i]))}"

    def result(self) -> Rollout:
        """The episodes, without the padding behind those that ended early."""
        assert self.obs is not None
        real = np.arange(self.rewards.shape[1]) < self.lengths[:, None]
        whole = bool(real.all())

        def flat(values: NDArray[Any]) -> NDArray[Any]:
            # Without early ends the padded array is the flat one: no copy of up to 250 MB.
            return values.reshape(real.size, *values.shape[2:]) if whole else values[real]

        flags = flat(self.flags)
        episode, t = np.nonzero(real)
        return Rollout(
            obs=flat(self.obs),
            actions=flat(self.actions),
            rewards=flat(self.rewards),
            flags={name: flags[:, f] for f, name in enumerate(self.envs.factory.flags)},
            episode=episode.astype(np.int32),
            t=t.astype(np.int32),
            terminated=flat(self.terminated),
            truncated=flat(self.truncated),
            final_obs=self.final_obs,
            success_steps=self.envs.factory.score.steps,
            seconds=self.seconds | {"total": time.perf_counter() - self.began},
            counts=self.counts,
        )
