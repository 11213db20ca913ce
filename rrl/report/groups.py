"""Runs sorted into groups (a method on a task), and how groups are named."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rrl.score import Score
from rrl.store.results import PARTS, Result

# Which run of a group it is, where and how fast it computed, how often it was evaluated; `groups` follows from device
# and workers.
WITHIN = frozenset({"seed", "device", "threads", "workers", "groups", "eval_every"})
ABSENT = "-"
IN_LABEL = 4  # settings


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
    def score(self) -> Score:
        """What its task is judged by."""
        return self.runs[0].score

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
    def packages(self) -> list[str]:
        """Distributions whose versions may decide numbers, torch last: its versions matter least."""
        names = dict.fromkeys(name for run in self.runs for name in run.packages if name != "torch")
        return [*names, "torch"]

    @property
    def tasks(self) -> dict[str, list[Group]]:
        """The groups of each task."""
        tasks: dict[str, list[Group]] = defaultdict(list)
        for group in self.groups:
            tasks[group.task].append(group)
        return dict(tasks)

    @property
    def methods(self) -> dict[tuple[object, ...], list[Group]]:
        """The groups of each method, in order; a method's place here is its colour in every figure."""
        methods: dict[tuple[object, ...], list[Group]] = defaultdict(list)
        for group in self.groups:
            methods[group.key].append(group)
        return dict(methods)

    def judged(self, *, counted: bool) -> Report:
        """The tasks whose score is a share of episodes, or those whose score is a number."""
        return Report(tuple(group for group in self.groups if group.score.counted == counted))


def collect(runs: Iterable[Result]) -> Report:
    """Sort runs into groups. Of two runs of one seed that which got further counts, or else the later one."""
    alike: dict[tuple[object, ...], list[Result]] = defaultdict(list)
    for run in runs:
        params = tuple(sorted((k, v) for k, v in run.params.items() if k not in WITHIN | run.unseen))
        alike[(*(run.labels[part] for part in PARTS), params)].append(run)
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
    differ = [n for n in names if n not in WITHIN and len({setting(g, n) for g in groups} - {None}) > 1]
    return [n for n in differ if not any(n.startswith(f"{other}.") for other in differ)]


def setting(group: Group, name: str) -> str | None:
    """A setting of a group; `ABSENT` if it has none of this name, None if it decides nothing there."""
    return None if name in group.runs[0].unseen else group.params.get(name, ABSENT)


def _named(groups: Sequence[Group]) -> Report:
    """Groups with the settings that tell them apart, in order."""
    classes: dict[tuple[str, ...], list[Group]] = defaultdict(list)
    tasks: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        classes[group.task, group.encoder, group.agent].append(group)
        tasks[group.task].append(group)
    apart = _telling(list(dict.fromkeys(name for alike in classes.values() for name in differing(alike))), classes)
    within = dict.fromkeys(n for alike in tasks.values() for n in differing(alike) if not _in_label(n, alike))
    names = list(dict.fromkeys([*apart, *within]))
    short = _short(names)

    def chosen(group: Group, names: Sequence[str]) -> tuple[tuple[str, str], ...]:
        values = {name: setting(group, name) for name in names}
        return tuple((short[n], v) for n, v in values.items() if v is not None and v != ABSENT)

    named = [replace(g, extras=chosen(g, apart), settings=chosen(g, names)) for g in groups]
    return Report(tuple(sorted(named, key=_order)))


def _telling(names: list[str], classes: Mapping[tuple[str, ...], Sequence[Group]]) -> list[str]:
    """Settings in their order; where a label has no room for all, those first that together tell most groups apart."""
    if len(names) <= IN_LABEL:
        return names
    first: list[str] = []
    while len(first) < IN_LABEL:
        rest = [name for name in names if name not in first]
        first.append(max(rest, key=lambda name: _distinct([*first, name], classes)))
    return first + [name for name in names if name not in first]


def _distinct(names: Sequence[str], classes: Mapping[tuple[str, ...], Sequence[Group]]) -> int:
    """How many groups these settings tell apart."""
    return sum(len({tuple(setting(g, n) for n in names) for g in groups}) for groups in classes.values())


def _in_label(name: str, groups: Sequence[Group]) -> bool:
    """Do the labels of these groups' encoders or agents hold this setting, as `ResNet34` holds the depth?"""
    values: dict[str, set[str]] = defaultdict(set)
    for group in groups:
        label = {"encoder": group.encoder, "agent": group.agent}.get(name.partition(".")[0], "")
        values[label].add(group.params.get(name, ABSENT))
    return all(len(held) == 1 and held.pop() in label for label, held in values.items())


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

    return group.task, group.encoder.casefold(), group.agent, tuple((number(v), v) for _, v in group.extras)
