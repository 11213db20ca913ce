"""The report's numbers: curves, what was reached when, final results, comparisons, time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np

from rrl.report.groups import Group, Report, seed_of
from rrl.score import Score, Space
from rrl.statistics import (
    Floats,
    align,
    bootstrap,
    difference,
    first_at,
    improvement,
    iqm,
    mean_band,
    median_reached,
    newcombe,
    wilson,
)
from rrl.store.results import Result

Axis = Literal["steps", "log-steps", "hours"]
"""What curves are drawn over: environment steps, linear or logarithmic, or hours on the runs' clocks."""
SPACES: tuple[Space, ...] = ("train", "eval")
"""Whose curves are drawn."""
THRESHOLDS = (50.0, 90.0)
ENOUGH = 3  # seeds, below which an interval across seeds says nothing
PARTS = ("simulate", "render", "encode", "act", "learning", "evaluating", "other")
COSTS = ("simulate", "render", "encode", "act", "update", "warm_start", "pretrain", "evaluate")
"""Parts of a run's ledger."""
MANY = 15  # comparisons on a task, above which only those with the best are shown
SOURCES = {"final": "final", "eval": "last", "train": "training", "summary": "training"}
"""Where a score is from, in a word."""


@dataclass(frozen=True)
class Curve:
    """A metric of a group over environment steps, or over hours."""

    x: Sequence[float]
    mean: Floats
    low: Floats
    high: Floats
    band: str
    """What `low` to `high` is, in words; empty for a single seed whose score is not counted."""
    seeds: Sequence[tuple[Sequence[float], Sequence[float]]]
    """Every run's own curve."""
    short: Sequence[Result]
    """Runs that are not in the mean because they ended before the others."""


def finite(value: float | None) -> float | None:
    """The number, or None for NaN and infinities, for which JSON has no word."""
    return value if value is not None and math.isfinite(value) else None


def reach(group: Group, metric: str) -> int:
    """Environment steps that a group got to with this metric: the least of its finished runs, or the most of
    any run if none is finished; 0 without measurements after training began."""
    ends = [(run.status, run.series(metric)[0][-1]) for run in group.runs if run.series(metric)[0]]
    finished = [step for status, step in ends if status == "finished"]
    return min(finished) if finished else max((step for _, step in ends), default=0)


def curve(group: Group, space: Space, x: Axis = "steps") -> Curve | None:
    """The score's mean over the seeds that got as many steps as the group (`reach`), in their common range of `x`; None
    if it was never measured. Over hours without runs that have no clock; on a logarithmic axis without step 0, which
    has no place there."""
    metric = group.score.metric(space)
    if x == "hours":
        group = replace(group, runs=tuple(run for run in group.runs if run.clock is not None))
    measured = {run.run_id: _placed(run, metric, x) for run in group.runs}
    series = [(run, points) for run in group.runs if (points := measured[run.run_id])]
    if not series:
        return None
    end = reach(group, metric)
    whole = [points for _, points in series if points[-1][1].step >= end]
    grid, values = align([_line(points) for points in whole])
    intervals = _intervals(whole[0], group.score) if len(whole) == 1 else []
    if len(whole) >= ENOUGH and len(grid):
        low, high = mean_band(values)
        band = "95 % bootstrap interval of the mean over seeds"
    elif intervals:
        low, high = 100 * np.array(intervals).T
        band = "of a single seed, 95 % Wilson interval of each point's episodes"
    else:
        low, high = values.min(axis=0), values.max(axis=0)
        band = "lowest to highest seed" if len(whole) > 1 else ""
    short = [run for run, points in series if points[-1][1].step < end]
    return Curve(grid.tolist(), values.mean(axis=0), low, high, band, [_line(points) for _, points in series], short)


def _placed(run: Result, metric: str, x: Axis) -> list[tuple[float, Measured]]:
    """(place on the axis, what was measured), in order."""
    points = measurements(run, metric)
    if x == "hours":
        return [(point.seconds / 3600, point) for point in points if point.seconds is not None]
    return [(point.step, point) for point in points if point.step > 0 or x == "steps"]


def _line(points: Sequence[tuple[float, Measured]]) -> tuple[list[float], list[float]]:
    return [place for place, _ in points], [point.value for _, point in points]


def _intervals(points: Sequence[tuple[float, Measured]], score: Score) -> list[tuple[float, float]]:
    """Wilson intervals of each point of a counted score; none if the episodes of a point are not known."""
    known = score.counted and all(point.episodes for _, point in points)
    return [wilson(point.wins, point.episodes) for _, point in points] if known else []


@dataclass(frozen=True)
class Measured:
    """The score of one run at one moment."""

    step: int
    """Environment steps of training before."""
    value: float
    """Percent if it is counted."""
    wins: int
    """0 if it is not counted."""
    episodes: int
    seconds: float | None = None
    """On the run's clock; None if it has none."""


def measurements(run: Result, metric: str) -> list[Measured]:
    """Every value of a metric of the score, in order."""
    # `eval/success` -> `eval/episodes`, `final/success_sampled` -> `final/episodes_sampled`
    episodes = f"{metric.partition('/')[0]}/episodes" + ("_sampled" if metric.endswith("_sampled") else "")
    points = []
    clock: Sequence[float | None] = run.clock or [None] * len(run.rows)
    for row, seconds in zip(run.rows, clock, strict=True):
        value, count = row.metrics.get(metric, math.nan), row.metrics.get(episodes, 0.0)
        if math.isfinite(value):  # of an agent that diverged it may be no number
            wins = round(value / 100 * count) if run.score.counted else 0
            points.append(Measured(row.step, value, wins, round(count), seconds))
    return points


def at(run: Result, metric: str, step: int) -> Measured | None:
    """The last measurement at or before `step`; None for a run that did not get there."""
    points = measurements(run, metric)
    if not points or points[-1].step < step:
        return None
    return next((point for point in reversed(points) if point.step <= step), None)


@dataclass(frozen=True)
class Scores:
    """The score of a group's seeds."""

    group: Group
    metric: str
    """Empty if none of them measured it."""
    by_seed: Mapping[int, Measured]

    @property
    def values(self) -> list[float]:
        """Of each seed."""
        return [point.value for point in self.by_seed.values()]

    @property
    def wins(self) -> int:
        """Of all seeds."""
        return sum(point.wins for point in self.by_seed.values())

    @property
    def episodes(self) -> int:
        """Of all seeds."""
        return sum(point.episodes for point in self.by_seed.values())

    @property
    def mean(self) -> float | None:
        """Over the episodes of all seeds if they are counted, else over seeds; None without any."""
        if self.group.score.counted and self.episodes:
            return 100 * self.wins / self.episodes
        return float(np.mean(self.values)) if self.by_seed else None

    @property
    def std(self) -> float | None:
        """Standard deviation over seeds (of the sample: n - 1); None of fewer than two."""
        return float(np.std(self.values, ddof=1)) if len(self.by_seed) > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % Wilson interval of the pooled episodes, percent; None where nothing is counted."""
        if not (self.group.score.counted and self.episodes):
            return None
        low, high = wilson(self.wins, self.episodes)
        return 100 * low, 100 * high


def scores(group: Group, *metrics: str) -> Scores:
    """Where its runs ended, by the first of these metrics that any of them measured; the others are left out."""
    for metric in metrics:
        by_seed = {seed_of(run): points[-1] for run in group.runs if (points := measurements(run, metric))}
        if by_seed:
            return Scores(group, metric, by_seed)
    return Scores(group, "", {})


@dataclass(frozen=True)
class Final:
    """Where a group ended."""

    group: Group
    scores: Scores
    """Of the final evaluation, or else of the last one; mean action."""
    sampled: Scores
    """With exploration noise, of the same evaluation, or else of the last training episodes; counted scores only."""
    flags: Mapping[str, float | None]
    """Success under the task's further goal flags, percent, as `scores` was measured."""
    controls: Mapping[str, float]
    """The score in other circumstances, as evaluators call them, such as `blind`; mean over seeds."""
    samples: tuple[int, int]
    """Least and most environment steps of training of a seed."""
    hours: float
    """Of training on the clock, mean over seeds."""
    speed: float
    """Environment steps per second of training, all included; 0 for runs without training."""


def final(group: Group) -> Final:
    """Runs with a final evaluation are pooled; those without are left out, unless none has one."""
    score = group.score
    end = scores(group, score.metric("final"), score.metric("eval"))
    sampled = [score.metric("final", "sampled"), score.metric("eval", "sampled"), score.metric("train")]
    flags = {flag: _under(flag, end) for flag in dict.fromkeys(f for run in group.runs for f in run.flags[1:])}
    kinds = score.kinds("final", (name for run in group.runs for row in run.rows for name in row.metrics))
    controls = {kind: score.metric("final", kind) for kind in kinds if f"{kind}_{score.name}" not in flags}
    lasts = {kind: [run.last(metric) for run in group.runs] for kind, metric in controls.items()}
    began = group.measured or group.runs
    steps, seconds = [run.steps for run in began], sum(run.seconds for run in began)
    return Final(
        group,
        end,
        scores(group, *(sampled if score.counted else ())),
        flags,
        {kind: float(np.mean([v for v in values if v is not None])) for kind, values in lasts.items()},
        (min(steps), max(steps)),
        seconds / 3600 / len(began),
        sum(steps) / seconds if seconds else 0.0,
    )


def _under(flag: str, end: Scores) -> float | None:
    """Success under another flag, over the episodes of all seeds."""
    metric = f"{end.metric.partition('/')[0]}/{flag}"
    pairs = [(run.last(metric), end.by_seed.get(seed_of(run))) for run in end.group.runs]
    weighed = [(value, point.episodes or 1) for value, point in pairs if value is not None and point]
    return sum(v * n for v, n in weighed) / sum(n for _, n in weighed) if weighed else None


@dataclass(frozen=True)
class Reached:
    """When a group's training curve first showed a score."""

    firsts: Sequence[int | None]
    """Environment steps, for each seed that got there or trained as long as the group did."""
    median: float | None
    trained: int
    """Steps that the group trained for."""


def reached(group: Group, threshold: float) -> Reached:
    """First update whose training episodes reach `threshold` (percent if counted), for each seed."""
    metric = group.score.metric("train")
    series = [points for run in group.runs if (points := run.series(metric))[0]]
    firsts = [(first_at(*points, threshold), points[0][-1]) for points in series]
    # A seed that stopped early tells nothing about later.
    trained = reach(group, metric)
    known = [first for first, end in firsts if first is not None or end >= trained]
    return Reached(known, median_reached(known), trained)


def common(groups: Sequence[Group]) -> tuple[Space, int]:
    """(space, steps) at which groups can be compared: the most samples that all that trained got to, of
    evaluations if all of them evaluated the score, else of training. 0 steps: there is no such moment."""
    reaches = [{space: reach(g, g.score.metric(space)) for space in SPACES} for g in groups]
    trained = [steps for steps in reaches if steps["train"] > 0]
    space: Space = "eval" if all(steps["eval"] > 0 for steps in trained) else "train"
    return space, min((steps[space] for steps in trained), default=0)


def at_common(group: Group, space: Space, step: int) -> Scores:
    """The scores of a group's seeds at such a moment; none of a group that didn't train."""
    metric = group.score.metric(space)
    trained = step and reach(group, group.score.metric("train"))
    points = {seed_of(run): at(run, metric, step) for run in group.runs} if trained else {}
    return Scores(group, metric, {seed: point for seed, point in points.items() if point})


@dataclass(frozen=True)
class Aggregate:
    """A method over tasks and seeds: interquartile means, percent, with 95 % intervals."""

    groups: Sequence[Group]
    end: tuple[float, float, float] | None
    """(iqm, low, high); the interval is nan where no task has a second seed."""
    equal: tuple[float, float, float] | None
    scores: int
    """Values (tasks x seeds) in `end`."""


def aggregates(report: Report) -> tuple[list[Aggregate], Space, int]:
    """(one for each method, space and steps of equal samples), for tasks with counted scores."""
    report = report.judged(counted=True)
    space, step = common(report.groups)
    aggregates = []
    for groups in report.methods.values():
        ends = [final(group).scores.values for group in groups]
        equal = [at_common(group, space, step).values for group in groups]
        aggregates.append(Aggregate(groups, _pooled(ends), _pooled(equal), sum(map(len, ends))))
    return aggregates, space, step


def _pooled(strata: Sequence[Sequence[float]]) -> tuple[float, float, float] | None:
    """Interquartile mean and its interval over tasks (each a stratum) and seeds."""
    strata = [values for values in strata if values]
    if not strata:
        return None
    mean = float(iqm(np.concatenate([np.asarray(values, float) for values in strata])))
    return mean, *(bootstrap(strata) if max(map(len, strata)) > 1 else (math.nan, math.nan))


@dataclass(frozen=True)
class Pair:
    """Two groups of a task at equal samples: first minus second, in percentage points if they are counted."""

    first: Group
    second: Group
    gap: float
    low: float
    high: float
    """Nan without an interval."""
    how: str
    """Where the interval comes from."""
    better: float
    """Probability that a seed of the first beats one of the second."""
    seeds: tuple[int, int]
    """Seeds of each; those in pairs if it is paired."""
    paired: bool


def pairs(groups: Sequence[Group]) -> tuple[list[Pair], Space, int]:
    """(comparisons, space, steps) of the groups of one task that trained; with many of them, only those with the
    best one."""
    space, step = common(groups)
    sides = [side for group in groups if (side := at_common(group, space, step)).by_seed]
    couples = list(combinations(sides, 2))
    if len(couples) > MANY:
        best = max(sides, key=lambda side: float(np.mean(side.values)))
        couples = [(best, other) for other in sides if other is not best]
    return [pair(*couple) for couple in couples], space, step


def pair(a: Scores, b: Scores) -> Pair:
    """First minus second, of one metric; both have measured it."""
    both = sorted(a.by_seed.keys() & b.by_seed.keys())
    paired = a.by_seed.keys() == b.by_seed.keys() or len(both) >= ENOUGH
    if paired:
        a, b = (Scores(side.group, side.metric, {seed: side.by_seed[seed] for seed in both}) for side in (a, b))
    gap, low, high = float(np.mean(a.values) - np.mean(b.values)), math.nan, math.nan
    if min(len(a.values), len(b.values)) >= ENOUGH:
        gap, low, high = difference(a.values, b.values, paired=paired)
        how = "bootstrap over pairs of seeds" if paired else "bootstrap over seeds"
    elif a.group.score.counted and a.episodes and b.episodes:
        low, high = (100 * end for end in newcombe(a.wins, a.episodes, b.wins, b.episodes))
        how = "Newcombe: episodes alone, not seeds"
    else:
        how = f"fewer than {ENOUGH} seeds: no interval"
    seeds = len(a.values), len(b.values)
    return Pair(a.group, b.group, gap, low, high, how, improvement(a.values, b.values), seeds, paired)


@dataclass(frozen=True)
class Compute:
    """Where a group's time went: means over updates and seeds."""

    group: Group
    seconds: dict[str, float]
    """Per update, for each of `PARTS`."""
    hours: float
    """All runs together, repeats too."""
    devices: list[str]


def compute(group: Group) -> Compute:
    """`evaluating` is what an update took beyond sampling and learning, `other` what sampling took beyond its
    four parts."""
    rows = [seconds for run in group.runs for seconds in _timed(run)]

    def mean(name: str) -> float:
        return float(np.mean([row.get(name, 0.0) for row in rows])) if rows else 0.0

    seconds = {part: mean(part) for part in PARTS[:4]}
    sampling, learning = mean("sampling"), mean("learning")
    other = max(0.0, sampling - sum(seconds.values()))
    evaluating = max(0.0, mean("iteration") - sampling - learning)
    seconds |= {"learning": learning, "evaluating": evaluating, "other": other}
    devices = dict.fromkeys(device(run) for run in group.all_runs if run.tags)
    return Compute(group, seconds, sum(run.seconds for run in group.all_runs) / 3600, list(devices))


@dataclass(frozen=True)
class Cost:
    """What a group's runs cost by their ledgers (`cost/*`): means over the seeds that have one from their beginning."""

    group: Group
    seconds: dict[str, float]
    """In all, for each of `COSTS` that was spent on."""
    compute: float
    """Seconds without simulating, rendering and evaluating (paper's section 5.5)."""
    multiply_adds: float
    memory: float
    """MB, the most of any seed."""
    reached: dict[float, list[tuple[int, float] | None]]
    """For each of `THRESHOLDS`, of each seed: (environment steps, compute seconds) at the first evaluation that showed
    it; None: none did. Empty where the score is not counted."""
    seeds: int


def cost(group: Group) -> Cost | None:
    """None where no seed has a ledger from its beginning."""
    runs = [run for run in group.runs if run.last("cost/since_step") == 0]
    if not runs:
        return None

    def mean(name: str) -> float:
        return float(np.mean([run.last(f"cost/{name}") or 0.0 for run in runs]))

    seconds = {part: mean(f"{part}_seconds") for part in COSTS}
    metric, counted = group.score.metric("eval"), group.score.counted
    return Cost(
        group,
        {part: spent for part, spent in seconds.items() if spent},
        mean("compute_seconds"),
        mean("multiply_adds"),
        max(run.last("cost/peak_memory_mb") or 0.0 for run in runs),
        {threshold: [_paid(run, metric, threshold) for run in runs] for threshold in THRESHOLDS if counted},
        len(runs),
    )


def _paid(run: Result, metric: str, threshold: float) -> tuple[int, float] | None:
    """(environment steps, compute seconds) at the first row where the metric is at the threshold or above."""
    for row in run.rows:
        if row.metrics.get(metric, -math.inf) >= threshold and "cost/compute_seconds" in row.metrics:
            return row.step, row.metrics["cost/compute_seconds"]
    return None


def _timed(run: Result) -> Iterator[dict[str, float]]:
    """Seconds of each of its updates: `iteration`, `sampling` with its four parts, and `learning`."""
    before = 0
    for row in run.rows:
        seconds = {name[5:]: value for name, value in row.metrics.items() if name.startswith("time/")}
        steps, before = row.step - before, row.step
        if "iteration" not in seconds:
            continue
        speed = seconds.pop("steps_per_second", 0.0)
        # Older runs have no time of a whole update: all that the agent timed itself.
        own = [value for name, value in seconds.items() if name not in {"iteration", "sampling", *PARTS}]
        seconds["learning"] = seconds.get("update", sum(own))
        if "sampling" not in seconds and "update" in seconds and speed:
            # Agents that learn at every step time all steps and updates of a round together.
            seconds["sampling"] = max(0.0, steps / speed - seconds["update"])
        yield seconds


def device(run: Result) -> str:
    """What it computed on, in words."""
    kind = run.params.get("device", "?")
    name = run.tags.get("device", "unknown device")
    return name if kind == "cuda" else f"{name}, {run.params.get('threads', '?')} threads"


def short(steps: float) -> str:
    """`1.5M`, `200k`, `40`"""
    for unit, word in ((1e6, "M"), (1e3, "k")):
        if abs(steps) >= unit:
            return f"{steps / unit:.3g}{word}"
    return f"{steps:.3g}"
