"""What is measured of each entrant, piece by piece: cost, features, probes, visual changes, clones."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rrl.agents.base import Agent
from rrl.config import ginfile
from rrl.demos.replay import NoPolicy
from rrl.demos.sets import with_objects
from rrl.envs.base import EnvFactory
from rrl.envs.scene import draws
from rrl.machine import multiply_adds
from rrl.machine.console import Display
from rrl.probes import pictures
from rrl.probes.entrants import Entrant
from rrl.probes.quantities import Quantity, pairs, quantities
from rrl.probes.regression import Fit, Floats, Ints, Perceptron, Ridge, explained, fitted, folds, held_out
from rrl.probes.settings import Probe
from rrl.registry import UserError, build
from rrl.rollout.data import Obs, Rollout, Stream, episodes
from rrl.rollout.episodes import Collector
from rrl.run import soundness
from rrl.run.experiment import Experiment
from rrl.store.pieces import Arrays, Key, Pieces

TIMED = 1.0
"""Seconds that an encoder's speed is measured for."""
NOMINAL = "none"
"""The name of no visual change."""
STILL = 1e-6
"""What changes less from step to step (std, in its own unit) doesn't move."""
KINDS = ("mean", "sampled")
"""Of actions."""


@dataclass(frozen=True)
class Material:
    """What all entrants are measured on."""

    base: Rollout
    """The demonstrations, with the whole state for observations [T, p]."""
    quantities: list[Quantity]
    constant: list[str]
    """Parts of the state that never change."""
    fold: Ints
    """[E]: of each episode."""
    chosen: Ints
    """Of the T states those that probes are fitted to and tried on."""
    places: list[pictures.Place]
    """Of the states that are shown under visual changes."""
    shown: NDArray[np.float32]
    """[K, p]: the whole state there."""

    @property
    def episode(self) -> Ints:
        """[T]"""
        return self.base.episode.astype(np.int64)

    @property
    def states(self) -> Floats:
        """[T, p]"""
        return self.base.obs.astype(np.float64)


class Measuring:
    """A probe's measurements, one set of simulators at a time."""

    def __init__(
        self, probe: Probe.Config, found: Sequence[Entrant], pieces: Pieces, open_: pictures.Simulators, show: Display
    ) -> None:
        self.probe, self.pieces, self.simulators, self.display = probe, pieces, open_, show
        self.entrants = sorted(found, key=lambda entrant: repr(entrant.encoder.frames()))  # who share pictures, share
        self.step_seconds: dict[str, float] = {}
        """By label, what a step of an environment takes, pictures included."""

    @contextmanager
    def noted(self, entrant: Entrant) -> Iterator[None]:
        """A mistake that ends this entrant's measurements and nobody else's."""
        try:
            yield
        except UserError as error:
            entrant.reason = str(error)
            self.display.line(f"{entrant.label}: {error}")

    # Shared

    @cached_property
    def oracle(self) -> EnvFactory:
        """The task with all that can be told of its state, and without pictures."""
        made: EnvFactory = build(with_objects(self.probe.env))
        return made

    @cached_property
    def any(self) -> Experiment:
        """The run of one entrant: for what all have in common."""
        return next(entrant.experiment for entrant in self.entrants if entrant.fine)

    @cached_property
    def material(self) -> Material:
        """The demonstrations' states and how they are split."""
        config, demos = self.any.config, self.any.demos
        assert demos is not None and config.workers is not None
        self.display.phase("replaying the demonstrations' states", int(demos.demos.lengths.sum()))
        envs = self.simulators.of(self.oracle, None, config.workers)
        base = demos.replay(Collector(envs), NoPolicy(envs.action_dim), progress=self.display.advance)
        found, constant = quantities(self.oracle.parts, base.obs)
        if base.episodes - -(-base.episodes // self.probe.folds) < 2 or base.episodes < self.probe.folds:
            raise UserError(
                f"{base.episodes} demonstrations can't be split into {self.probe.folds} folds so that probes are "
                "fitted to two episodes or more: take more demonstrations, or set Probe.folds"
            )
        chosen, seen = (pictures.spread(len(base.t), count) for count in (self.probe.states, self.probe.shown))
        places = [(int(base.episode[k]), int(base.t[k])) for k in seen] if self.changes else []
        shown = pictures.shown(envs, demos.demos, places).at(np.arange(len(places))).state if places else base.obs[:0]
        fold = folds(base.episodes, self.probe.folds, np.random.default_rng(self.probe.seed))
        return Material(base, found, constant, fold, chosen, places, shown)

    @cached_property
    def changes(self) -> list[str]:
        """Names of the visual changes. UserError for one that is asked for and that the environment can't show."""
        asked = self.probe.changes
        if not self.probe.shown or asked == ():
            return []
        known, refused = pictures.changes(build(self.probe.env))
        for name in asked or ():
            if name not in known:
                why = refused.get(name, f"it knows {', '.join(map(repr, known))}")
                raise UserError(f"Probe.changes has {name!r}, which {self.oracle.name} can't show: {why}")
        for name, why in refused.items() if asked is None else ():
            self.display.line(f"note: no visual change {name}: {why}")
        return list(known if asked is None else asked)

    # Pieces

    def features_key(self, entrant: Entrant) -> Key:
        """Of the demonstrations' features."""
        return {"piece": "features", **entrant.key()}

    def shown_key(self, entrant: Entrant, change: str) -> Key:
        """Of the features of shown states."""
        return {"piece": "shown", "change": change, "shown": self.probe.shown, "of": self.probe.seed, **entrant.key()}

    def cost_key(self, entrant: Entrant) -> Key:
        """Of its cost: of this machine."""
        threads = entrant.experiment.config.threads
        return {"piece": "cost", "threads": threads, "machine": platform.node(), **entrant.key()}

    def probes_key(self, entrant: Entrant) -> Key:
        """Of its probes."""
        return {"piece": "probes", **self._fitting(entrant)}

    def drift_key(self, entrant: Entrant) -> Key:
        """Of its probes under visual changes."""
        return {"piece": "drift", "changes": self.changes, "shown": self.probe.shown, **self._fitting(entrant)}

    def _fitting(self, entrant: Entrant) -> dict[str, Any]:
        probe, targets = self.probe, {"name": self.oracle.name, **ginfile.flatten(self.oracle.config)}
        how = {"folds": probe.folds, "states": probe.states, "mlp": list(probe.mlp_hidden), "seed": probe.seed}
        return {**how, "targets": targets, **entrant.key()}

    def clone_key(self, entrant: Entrant, clone: int) -> Key:
        """Of one of its clones."""
        agent = {"name": self.probe.agent.component.__name__, **ginfile.flatten(self.probe.agent)}
        first, count = self.share(clone)
        todo = {"clone": clone, "seed": self.probe.seed, "first": first, "count": count}
        return {"piece": "clone", "agent": agent, **todo, **entrant.key()}

    def share(self, clone: int) -> tuple[int, int]:
        """(first evaluation episode, number of them) of a clone."""
        ends = [k * self.probe.episodes // self.probe.clones for k in (clone, clone + 1)]
        return ends[0], ends[1] - ends[0]

    def left(self) -> list[Key]:
        """Keys of what is not done yet."""
        keys: list[Key] = []
        for entrant in (e for e in self.entrants if e.fine):
            keys += [self.cost_key(entrant), self.features_key(entrant), self.probes_key(entrant)]
            if entrant.sees and self.changes:
                keys += [self.shown_key(entrant, change) for change in (NOMINAL, *self.changes)]
                keys.append(self.drift_key(entrant))
            keys += [self.clone_key(entrant, clone) for clone in range(self.probe.clones)]
        return [key for key in keys if not self.pieces.has(key)]

    def seconds_left(self) -> dict[str, float]:
        """What the pieces that are left take, by kind, as far as that follows from what was timed."""
        spent = dict.fromkeys(("pictures and features", "clones"), 0.0)
        drawn: set[Any] = set()
        for entrant in (e for e in self.entrants if e.fine):
            run = entrant.experiment
            cost = (self.pieces.get(self.cost_key(entrant)) or {})["result"]
            step = self.step_seconds[entrant.label]
            encode = len(run.env.cameras) / cost["pictures_per_second"] if entrant.sees else 0.0
            steps, shown = len(self.material.base.t), len(self.material.places)
            looked = [(steps, self.features_key(entrant))]
            if entrant.sees and self.changes:
                looked += [(shown, self.shown_key(entrant, change)) for change in (NOMINAL, *self.changes)]
            for number, (count, key) in enumerate(looked):
                if not self.pieces.has(key):
                    pictures_key = (run.frames, run.config.env, number)
                    spent["pictures and features"] += count * (encode + (0.0 if pictures_key in drawn else step))
                    drawn.add(pictures_key)
            todo = [k for k in range(self.probe.clones) if not self.pieces.has(self.clone_key(entrant, k))]
            acted = sum(2 * self.share(k)[1] * run.env.horizon for k in todo)
            spent["clones"] += acted * (encode + step)
        return spent

    # Agents

    def collector(self, entrant: Entrant) -> Collector:
        """The environments in which an entrant acts."""
        run = entrant.experiment
        assert run.config.workers is not None and run.config.threads is not None
        torch.set_num_threads(run.config.threads)
        return Collector(self.simulators.of(run.env, run.frames, run.config.workers), run.config.groups or 1)

    def agent(self, entrant: Entrant, seed: int = 0) -> tuple[Agent, Collector]:
        """An agent of an entrant, not taught yet, and the environments in which it acts."""
        run, collector = entrant.experiment, self.collector(entrant)
        inference = run.make_inference(collector, self.display)
        return run.make_agent(run.encoder, collector.envs, inference, seed), collector

    # Cost

    def cost(self, entrant: Entrant) -> None:
        """Pictures per second, parameters and multiply-adds of the encoder; and how fast its environments are."""
        agent, collector = self.agent(entrant)
        self.step_seconds[entrant.label] = _seconds_per_step(collector)
        self.pieces.made(self.cost_key(entrant), partial(self._cost, entrant, agent, collector))

    def _cost(self, entrant: Entrant, agent: Agent, collector: Collector) -> dict[str, Any]:
        run, envs = entrant.experiment, collector.envs
        size = batch(collector)
        found = {"dim": run.encoder.dim, "parameters": sum(p.numel() for p in run.encoder.parameters())}
        if run.frames is None:
            return found
        seen = {name: values[:size].copy() for name, values in envs.observation().items()}
        frames = np.concatenate([seen["frames"]] * run.frames.stack, axis=-1)
        spent = _seconds(partial(agent.observe, Obs(frames, seen["state"])))
        rate, counted = size * len(run.env.cameras) / spent, multiply_adds.of_picture(run.encoder, frames)
        speed = {"pictures_per_second": rate, "batch": size * len(run.env.cameras), "threads": run.config.threads}
        return {**found, **speed, "multiply_adds": counted}

    # Features

    def features(self, group: Sequence[Entrant]) -> None:
        """The demonstrations' features of entrants that see the same pictures, which are drawn once."""
        missing = [entrant for entrant in group if not self.pieces.has(self.features_key(entrant))]
        if not missing:
            return
        run, collector = missing[0].experiment, self.collector(missing[0])
        assert run.demos is not None
        steps = int(run.demos.demos.lengths.sum())
        self.display.phase("drawing the demonstrations" if run.frames else "replaying the demonstrations", steps)
        seen, final = pictures.replayed(run.demos, collector.envs, collector.groups, self.display.advance)
        for entrant in missing:
            with self.noted(entrant):
                agent, collector = self.agent(entrant)
                self.display.phase(f"{entrant.label}: encoding the demonstrations", steps)
                arrays = {"obs": self._observed(agent, seen, collector)}
                arrays["final_obs"] = self._observed(agent, final, collector)
                self.pieces.put_arrays(self.features_key(entrant), arrays)

    def shown(self, group: Sequence[Entrant]) -> None:
        """Features of some recorded states under each visual change, likewise."""
        for change in [NOMINAL, *self.changes] if self.changes else []:
            missing = [e for e in group if e.fine and e.sees and not self.pieces.has(self.shown_key(e, change))]
            if not missing:
                continue
            self.display.phase(f"drawing states, visual change: {change}", len(self.material.places))
            seen = self._changed(missing[0], change)
            for entrant in missing:
                with self.noted(entrant):
                    agent, collector = self.agent(entrant)
                    self.display.phase(f"{entrant.label}: encoding, visual change: {change}", len(seen))
                    rows = self._observed(agent, seen, collector)
                    self.pieces.put_arrays(self.shown_key(entrant, change), {"obs": rows})

    def _changed(self, entrant: Entrant, change: str) -> pictures.Seen:
        run, demos = entrant.experiment, entrant.experiment.demos
        assert run.config.workers is not None and demos is not None
        looks, places = pictures.looks(run.env), self.material.places
        env = build(looks[change]) if change in looks else run.env
        scenes = None if change in (NOMINAL, *looks) else draws(change, len(places), self.probe.seed)
        envs = self.simulators.of(env, run.frames, run.config.workers)
        return pictures.shown(envs, demos.demos, places, scenes, self.display.advance)

    def _observed(self, agent: Agent, seen: pictures.Seen, collector: Collector) -> NDArray[Any]:
        """Rows of what the agent makes of it, in batches as in a run: rounding depends on their shape."""
        size, total, rows = batch(collector), len(seen), []
        for start in range(0, total, size):
            row = agent.observe_demo(seen.at(np.minimum(np.arange(start, start + size), total - 1)))
            rows.append(row[: total - start])
            self.display.advance(len(rows[-1]))
        found = np.concatenate(rows)
        if not np.isfinite(found).all():
            column = int(np.argwhere(~np.isfinite(found))[0][1])
            name = getattr(agent, "column", "number {} of what it observes".format)(column)
            raise UserError(f"{name} is not finite: see that the weights are whole, and try Probe.precision = 'fp32'")
        return found

    # Probes

    def _looked_at(self, entrant: Entrant, rows: NDArray[Any]) -> Floats:
        """What probes get of an agent's rows: the features; of who sees nothing, the state."""
        return np.asarray(rows[:, : entrant.experiment.encoder.dim] if entrant.sees else rows, np.float64)

    def _demos(self, entrant: Entrant) -> Arrays:
        arrays = self.pieces.arrays(self.features_key(entrant))
        if arrays is None:
            raise UserError(f"the features of {entrant.label} are gone from {self.pieces.folder}: start again")
        return arrays

    def probes(self, entrant: Entrant) -> None:
        """R^2 of each quantity: linear and nonlinear, of one picture, and of two its change from the one before."""
        self.pieces.made(self.probes_key(entrant), partial(self._probes, entrant))

    def _probes(self, entrant: Entrant) -> dict[str, Any]:
        task, x = self.material, self._looked_at(entrant, self._demos(entrant)["obs"])
        ways: dict[str, Fit] = {"linear": Ridge}
        if self.probe.mlp_hidden:
            ways["mlp"] = partial(Perceptron, self.probe.mlp_hidden, self.probe.seed)
        self.display.phase(f"{entrant.label}: fitting probes", 2 * len(ways))
        now = task.chosen
        still = {q.name: task.states[now][:, q.columns] for q in task.quantities if not q.rate}
        later = now[task.base.t[now] > 0]
        before = {q.name: 0.0 if q.rate else task.states[later - 1][:, q.columns] for q in task.quantities}
        moving = {q.name: task.states[later][:, q.columns] - before[q.name] for q in task.quantities}
        moving = {name: y for name, y in moving.items() if y.std(0).max() > STILL}
        found: dict[str, Any] = {}
        for way, fit in ways.items():
            found[way] = self._explained(x[now], still, now, fit)
            self.display.advance(1)
            found[f"{way}_change"] = self._explained(pairs(x, later), moving, later, fit)
            self.display.advance(1)
        return found

    def _explained(self, x: Floats, targets: Mapping[str, Floats], places: Ints, fit: Fit) -> dict[str, float]:
        """R^2 of quantities at these places, each as told by probes that have not seen its episode."""
        if not targets:
            return {}
        y, fold, episode = np.concatenate(list(targets.values()), axis=1), self.material.fold, self.material.episode
        models = fitted(x, y, episode[places], fold, fit)
        return _of_each(targets, held_out(models, x, fold[episode[places]]))

    def drift(self, entrant: Entrant) -> None:
        """How far features move under visual changes, and what becomes of the linear probes."""
        if entrant.sees and self.changes:
            self.pieces.made(self.drift_key(entrant), partial(self._drift, entrant))

    def _drift(self, entrant: Entrant) -> dict[str, Any]:
        task, x = self.material, self._looked_at(entrant, self._demos(entrant)["obs"])
        self.display.phase(f"{entrant.label}: visual changes", 0)
        still, now = [q for q in task.quantities if not q.rate], task.chosen
        columns = np.concatenate([q.columns for q in still])
        models = fitted(x[now], task.states[now][:, columns], task.episode[now], task.fold, Ridge)
        fold = task.fold[[i for i, _ in task.places]]
        seen = {
            change: self._looked_at(entrant, arrays["obs"])
            for change in [NOMINAL, *self.changes]
            if (arrays := self.pieces.arrays(self.shown_key(entrant, change))) is not None
        }
        spread = float(seen[NOMINAL].var(0).sum())
        targets = {q.name: task.shown.astype(np.float64)[:, q.columns] for q in still}
        return {
            change: {
                "moved": float(np.square(rows - seen[NOMINAL]).sum(1).mean()) / max(spread, 1e-300),
                "r2": _of_each(targets, held_out(models, rows, fold)),
            }
            for change, rows in seen.items()
        }

    # Clones

    def clone(self, entrant: Entrant, clone: int) -> None:
        """Clone the demonstrations and act, with the mean and with sampled actions, in its share of the episodes."""
        self.pieces.made(self.clone_key(entrant, clone), partial(self._clone, entrant, clone))

    def _clone(self, entrant: Entrant, clone: int) -> dict[str, Any]:
        agent, collector = self.agent(entrant, self.probe.seed + clone)
        seen, env = self._demos(entrant), entrant.experiment.env
        demos = replace(self.material.base, obs=seen["obs"], final_obs=seen["final_obs"])
        learnt = agent.warm_start(demos, self.display)
        soundness.check(agent, f"in the cloning on {entrant.label}", learnt)
        (first, count), noise = self.share(clone), (env.horizon, collector.envs.action_dim)
        mean, sampled = (
            episodes(count, seed=self.probe.seed, stream=Stream.EVAL, first=first, noise=drawn)
            for drawn in (None, noise)
        )
        self.display.phase(f"{entrant.label}: clone {clone + 1} of {self.probe.clones} acts", 2 * count * env.horizon)
        rollout = collector.collect(agent, [*mean, *sampled], progress=self.display.advance, keep=False)
        values = {flag: rollout.success(flag) for flag in env.flags} | {"return": rollout.returns()}
        halves = zip(KINDS, (slice(0, count), slice(count, None)), strict=True)
        return {"learnt": learnt} | {
            kind: {name: v[half].tolist() for name, v in values.items()} for kind, half in halves
        }


def batch(collector: Collector) -> int:
    """Environments whose pictures are encoded together."""
    return -(-collector.envs.num_envs // collector.groups)


def _of_each(targets: Mapping[str, Floats], predicted: Floats) -> dict[str, float]:
    """R^2 by name; `predicted` [N, q] has the targets' columns one after another."""
    ends = np.cumsum([y.shape[1] for y in targets.values()])
    parts = np.split(predicted, ends[:-1], axis=1)
    return {name: explained(y, part) for (name, y), part in zip(targets.items(), parts, strict=True)}


def _seconds_per_step(collector: Collector) -> float:
    """What a step of an environment takes on the wall clock, all of them stepped together."""
    envs, turns = collector.envs, 3
    envs.reset(seed=list(range(envs.num_envs)))
    actions = np.zeros((envs.num_envs, envs.action_dim), np.float32)
    envs.step(actions)
    start = time.perf_counter()
    for _ in range(turns):
        envs.step(actions)
    return (time.perf_counter() - start) / (turns * envs.num_envs)


def _seconds(work: Callable[[], object]) -> float:
    """Of one call, on average over `TIMED` seconds."""
    work()  # the first one allocates
    start, calls = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < TIMED:
        work()
        calls += 1
    return spent / calls
