"""The collector: whole episodes of a policy in a vector environment."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl.envs.vector import WorkerVectorEnv
from rrl.rollout.data import Episode, Obs, Policy, Rollout, Stack


@dataclass
class _Group:
    """Neighbouring slots that act together: one batch of the encoder and of the policy."""

    slots: slice
    running: NDArray[np.int64]
    """Per slot the index of its episode, -1: idle."""
    frames: Stack
    """Of pictures, as deep as the encoder asks for."""
    kept: Stack
    """Of what `observe` kept, as deep as the policy asks for."""
    observed: NDArray[Any]
    """Per slot what `observe` kept last."""
    seen: NDArray[Any]
    """Per slot what `act` gets."""
    pending: Any = None
    """The step that the environments are making."""
    begun: float = 0.0
    """Seconds that beginning it took: without worker processes, all of it."""

    @property
    def active(self) -> NDArray[np.bool_]:
        return self.running >= 0


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

    def collect(
        self,
        policy: Policy,
        todo: Sequence[Episode],
        *,
        each_step: Callable[[NDArray[np.int64], NDArray[np.int64]], None] | None = None,
        progress: Callable[[int], None] | None = None,
        keep: bool = True,
    ) -> Rollout:
        """Run all episodes of `todo` with `policy`. Without `keep` the rollout has no observations ([T, 0]):
        an evaluation needs none, and pictures are large.

        `each_step(episode, t)` is called after every step of a group with, per slot, the running episode's
        index (-1: idle, or in another group) and its step count; `progress(n)` with the number of steps
        just made.
        """
        envs, factory = self.envs, self.envs.factory
        began = time.perf_counter()
        clock = dict.fromkeys(("simulate", "render", "encode", "act"), 0.0)
        longest = max(factory.horizon if e.actions is None else len(e.actions) for e in todo)
        rewards = np.zeros((len(todo), longest))
        actions = np.zeros((len(todo), longest, envs.action_dim), np.float32)
        flags = np.zeros((len(todo), longest, len(factory.flags)), bool)
        terminated = np.zeros((len(todo), longest), bool)
        truncated = np.zeros((len(todo), longest), bool)
        lengths = np.zeros(len(todo), np.int64)
        obs = final_obs = np.zeros(0, np.float32)
        upcoming = 0
        chosen = np.zeros((envs.num_envs, envs.action_dim), np.float32)
        results = envs.results()

        def observe(group: _Group, fresh: NDArray[np.bool_], moved: NDArray[np.bool_]) -> None:
            """Look at all slots of the group: `fresh` ones begin an episode, `moved` ones made a step."""
            start = time.perf_counter()
            seen = envs.observation()
            frames = None
            if "frames" in seen:
                frames = group.frames.push(seen["frames"][group.slots], fresh, moved)
            group.observed = policy.observe(Obs(frames, seen["state"][group.slots]))
            group.seen = group.kept.push(group.observed, fresh, moved)
            clock["encode"] += time.perf_counter() - start

        def refill(group: _Group, free: NDArray[np.bool_]) -> NDArray[np.bool_]:
            """Start the next episodes in the free slots; which slots of the group begin one?"""
            nonlocal upcoming
            group.running[free] = -1
            mask = np.zeros(envs.num_envs, bool)
            seeds: list[int | None] = [None] * envs.num_envs
            initial: list[Any] = [None] * envs.num_envs
            for j in np.flatnonzero(free)[: len(todo) - upcoming]:
                episode, slot = todo[upcoming], group.slots.start + j
                mask[slot], seeds[slot], initial[slot] = True, episode.seed, episode.initial
                group.running[j] = upcoming
                upcoming += 1
            if mask.any():
                start = time.perf_counter()
                envs.reset(seed=seeds, options={"reset_mask": mask, "initial": initial})
                clock["simulate"] += time.perf_counter() - start
            return mask[group.slots]

        def act(group: _Group) -> None:
            """Choose the group's actions and let its environments begin the step."""
            began_acting = time.perf_counter()
            rows = np.flatnonzero(group.active)
            index = group.running[rows]
            noise = np.zeros((len(group.running), envs.action_dim), np.float32)
            for j, i in zip(rows, index, strict=True):
                drawn = todo[i].noise
                if drawn is not None:
                    noise[j] = drawn[lengths[i]]
            mine = policy.act(group.seen, noise)
            for j, i in zip(rows, index, strict=True):
                script = todo[i].actions
                if script is not None:
                    mine[j] = script[lengths[i]]
            if keep:
                obs[index, lengths[index]] = group.observed[rows]
            actions[index, lengths[index]] = mine[rows]
            chosen[group.slots] = mine
            active = np.zeros(envs.num_envs, bool)
            active[group.slots] = group.active
            start = time.perf_counter()
            clock["act"] += start - began_acting
            group.pending = envs.begin_step(chosen, active)
            group.begun = time.perf_counter() - start

        def advance(group: _Group) -> None:
            """Take in the group's step, encode what it shows, and begin the next one."""
            rows = np.flatnonzero(group.active)
            index = group.running[rows]
            start = time.perf_counter()
            envs.wait(group.pending)
            waited = time.perf_counter() - start + group.begun
            got = {name: values[group.slots][rows] for name, values in results.items()}
            simulating, rendering = got["seconds"].sum(axis=0)
            share = rendering / max(simulating + rendering, 1e-12)
            clock["render"] += waited * share
            clock["simulate"] += waited * (1.0 - share)
            t = lengths[index]
            rewards[index, t] = got["reward"]
            flags[index, t] = got["flags"]
            terminated[index, t] = got["terminated"]
            truncated[index, t] = got["truncated"]
            lengths[index] += 1
            observe(group, np.zeros_like(group.active), group.active)

            done = np.zeros(len(group.running), bool)
            for j, i, ended in zip(rows, index, got["terminated"] | got["truncated"], strict=True):
                script = todo[i].actions
                done[j] = ended if script is None else lengths[i] == len(script)
            if keep:
                final_obs[group.running[done]] = group.observed[done]
            if each_step is not None:
                everywhere = np.full(envs.num_envs, -1)
                everywhere[group.slots] = group.running
                each_step(everywhere, np.where(everywhere >= 0, lengths[everywhere], 0))
            if progress is not None:
                progress(len(rows))
            if done.any() and (fresh := refill(group, done)).any():
                observe(group, fresh, np.zeros_like(fresh))
            if group.active.any():
                act(group)

        bounds = [g * envs.num_envs // self.groups for g in range(self.groups + 1)]
        depth = 1 if envs.frames is None else envs.frames.stack
        groups = [
            _Group(
                slots=slice(a, b),
                running=np.full(b - a, -1),
                frames=Stack(b - a, depth),
                kept=Stack(b - a, policy.stack),
                observed=obs,
                seen=obs,
            )
            for a, b in pairwise(bounds)
        ]
        for group in groups:
            fresh = refill(group, ~group.active)
            observe(group, fresh, ~fresh)
            if group is groups[0]:
                width, kind = group.observed.shape[1] if keep else 0, group.observed.dtype
                obs = np.zeros((len(todo), longest, width), kind)
                final_obs = np.zeros((len(todo), width), kind)
            if group.active.any():
                act(group)
        while any(group.active.any() for group in groups):
            for group in groups:
                if group.active.any():
                    advance(group)

        kept = np.arange(longest) < lengths[:, None]
        whole = bool(kept.all())

        def flat(values: NDArray[Any]) -> NDArray[Any]:
            # Without early ends the padded array is the flat one: no copy of up to 250 MB.
            return values.reshape(kept.size, *values.shape[2:]) if whole else values[kept]

        flat_flags = flat(flags)
        episode, step = np.nonzero(kept)
        return Rollout(
            obs=flat(obs),
            actions=flat(actions),
            rewards=flat(rewards),
            flags={name: flat_flags[:, f] for f, name in enumerate(factory.flags)},
            episode=episode.astype(np.int32),
            t=step.astype(np.int32),
            terminated=flat(terminated),
            truncated=flat(truncated),
            final_obs=final_obs,
            success_steps=factory.score.steps,
            seconds=clock | {"total": time.perf_counter() - began},
        )
