"""Runs sorted into groups (a method on a task), and how groups are named."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from rrl.store.results import Result

# Which run of a group it is, and where and how fast it computed; `groups` follows from device and workers.
WITHIN = frozenset({"seed", "device", "threads", "workers", "groups"})
UNSEEN = frozenset({"precision", "backend", "env.look"})  # decide nothing in runs without pictures
ABSENT = "-"
IN_LABEL = 4  # settings
Kind = Literal["success", "return"]


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone: one method on one task."""

    task: str
    """Such as `door` or `cartpole swingup`."""
    encoder: str
    """Such as `ResNet34` or `ResNet34 (UNTRAINED)`."""
    agent: str
    runs: tuple[Result, ...]
    """One for each seed, by seed."""
    repeats: tuple[Result, ...] = ()
    """Further runs of the same seeds, which got less far; in no number of the report."""
    extras: tuple[tuple[str, str], ...] = ()
    """(short name, value) of the settings that tell it from groups of the same task, encoder and agent."""
    settings: tuple[tuple[str, str], ...] = ()
    """(short name, value) of all settings in which groups of this task differ."""

    @property
    def method(self) -> str:
        """What is compared, and what is the same on several tasks: encoder, agent, settings."""
        words = [f"{name} {value}" for name, value in self.extras[:IN_LABEL]]
        more = [f"+{len(self.extras) - IN_LABEL} settings"] if len(self.extras) > IN_LABEL else []
        return " · ".join([self.encoder, self.agent, *words, *more])

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for the same method on several tasks."""
        return self.encoder, self.agent, self.extras

    @property
    def label(self) -> str:
        """`door · ResNet34 · DAPG · lam_0 0.02`"""
        return f"{self.task} · {self.method}"

    @property
    def measured(self) -> tuple[Result, ...]:
        """Runs that got as far as to measure anything."""
        return tuple(run for run in self.runs if run.rows)

    @property
    def params(self) -> Mapping[str, str]:
        """Settings, the same for all runs except for those in `WITHIN`."""
        return self.runs[0].params

    @property
    def all_runs(self) -> tuple[Result, ...]:
        """With the repeats."""
        return self.runs + self.repeats


@dataclass(frozen=True)
class Report:
    """What one page is about."""

    groups: tuple[Group, ...]
    """By task, then method."""

    @property
    def runs(self) -> list[Result]:
        """All of them, by group and seed."""
        return [run for group in self.groups for run in group.all_runs]

    @property
    def tasks(self) -> dict[str, list[Group]]:
        """The groups of each task."""
        found: dict[str, list[Group]] = defaultdict(list)
        for group in self.groups:
            found[group.task].append(group)
        return dict(found)

    @property
    def methods(self) -> dict[tuple[object, ...], list[Group]]:
        """The groups of each method, in order; a method's place here is its colour in every figure."""
        found: dict[tuple[object, ...], list[Group]] = defaultdict(list)
        for group in self.groups:
            found[group.key].append(group)
        return dict(found)

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        """What each task is measured by."""
        return {task: kind(groups) for task, groups in self.tasks.items()}

    @cached_property
    def counted(self) -> Report:
        """The tasks with success rates."""
        return Report(tuple(g for g in self.groups if self.kinds[g.task] == "success"))

    @cached_property
    def scored(self) -> Report:
        """The tasks that have returns alone."""
        return Report(tuple(g for g in self.groups if self.kinds[g.task] == "return"))


def kind(groups: Sequence[Group]) -> Kind:
    """What a task's runs are measured by: success, but the return where they measured returns and no success,
    as DMControl's, which has no success test."""
    names = {n for group in groups for run in group.all_runs for row in run.rows for n in row.metrics}
    measured = {n.partition("/")[2] for n in names if n.startswith(("train/", "eval/", "final/"))}
    returns, success = (any(n.startswith(word) for n in measured) for word in ("return", "success"))
    return "return" if returns and not success else "success"


def pictures(run: Result) -> bool:
    """Does this run's policy see pictures?"""
    return run.params.get("encoder") != "State" and run.tags.get("renderer") != "none"


def task_of(run: Result) -> str:
    """Such as `door`; of DMControl with the domain, such as `cartpole swingup`."""
    names = [run.params[name] for name in ("env.domain", "env.task") if run.params.get(name)]
    return " ".join(names) or run.tags.get("env") or run.params.get("env", "?")


def encoder_of(run: Result) -> str:
    """The encoder's name with its depth, and with a mark if it is untrained or blind."""
    name = run.params.get("encoder", "?")
    mark = run.tags.get("encoder", "")[len(name) :]
    if not run.tags:  # it failed before it could say
        untrained, blind = run.params.get("encoder.weights") == "None", run.params.get("encoder.blind")
        mark = " (UNTRAINED)" if untrained else " (blind)" if blind == "True" else ""
    return f"{name}{run.params.get('encoder.depth', '')}{mark}"


def collect(runs: Iterable[Result]) -> Report:
    """Sort runs into groups. Of two runs of one seed that which got further counts, or else the later one."""
    alike: dict[tuple[object, ...], list[Result]] = defaultdict(list)
    for run in runs:
        skip = WITHIN if pictures(run) else WITHIN | UNSEEN
        params = tuple(sorted((k, v) for k, v in run.params.items() if k not in skip))
        alike[task_of(run), encoder_of(run), run.params.get("agent", "?"), params].append(run)
    groups = []
    for (task, encoder, agent, _), members in alike.items():
        best: dict[int, Result] = {}
        for run in sorted(members, key=lambda r: (r.status == "finished", r.steps, len(r.rows), r.started)):
            best[seed_of(run)] = run
        first = tuple(best[seed] for seed in sorted(best))
        rest = tuple(run for run in members if run not in first)
        groups.append(Group(str(task), str(encoder), str(agent), first, rest))
    return _named(groups)


def seed_of(run: Result) -> int:
    """The run's seed."""
    return int(run.params.get("seed", "0"))


def differing(groups: Sequence[Group]) -> list[str]:
    """Settings that differ between these groups; of a component that differs, not what
    is inside it."""
    names = {name: None for group in groups for name in group.params}
    found = [n for n in names if n not in WITHIN and len({_value(g, n) for g in groups} - {None}) > 1]
    return [n for n in found if not any(n.startswith(f"{other}.") for other in found)]


def _value(group: Group, name: str) -> str | None:
    """None: this group has no say in it."""
    if name in UNSEEN and not pictures(group.runs[0]):
        return None
    return group.params.get(name, ABSENT)


def _named(groups: Sequence[Group]) -> Report:
    """Groups with the settings that tell them apart, in order."""
    classes: dict[tuple[str, ...], list[Group]] = defaultdict(list)
    tasks: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        classes[group.task, group.encoder, group.agent].append(group)
        tasks[group.task].append(group)
    apart = list(dict.fromkeys(name for alike in classes.values() for name in differing(alike)))
    told = {"encoder", "encoder.depth", "agent"}  # by the label itself
    within = dict.fromkeys(n for alike in tasks.values() for n in differing(alike) if n not in told)
    every = list(dict.fromkeys([*apart, *within]))
    short = _short(every)

    def chosen(group: Group, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
        values = {name: _value(group, name) for name in names}
        return tuple((short[n], v) for n, v in values.items() if v is not None and v != ABSENT)

    named = [replace(g, extras=chosen(g, apart), settings=chosen(g, every)) for g in groups]
    return Report(tuple(sorted(named, key=_order)))


def _short(names: Sequence[str]) -> dict[str, str]:
    """Last parts of names where they are unique: `agent.lam_0` -> `lam_0`."""
    last = [name.rpartition(".")[2] for name in names]
    ends = zip(names, last, strict=True)
    return {n: n if last.count(end) > 1 or n.startswith("evaluators") else end for n, end in ends}


def _order(group: Group) -> tuple[object, ...]:
    """By task and method; settings as numbers where they are."""

    def number(text: str) -> float:
        try:
            return float(text)
        except ValueError:
            return math.inf

    return group.task, group.encoder, group.agent, tuple((number(v), v) for _, v in group.extras)
