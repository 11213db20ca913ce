"""The report's numbers: curves, what was reached when, final results, comparisons, time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from rrl.report.groups import Group, Kind, Report, kind, seed_of
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

TRAIN, EVAL, FINAL = "train/success", "eval/success", "final/success"
CURVES: dict[Kind, tuple[str, str]] = {"success": (TRAIN, EVAL), "return": ("train/return", "eval/return")}
"""(training, evaluation) metric of tasks that are measured by success, or by the return."""
THRESHOLDS = (50.0, 90.0)
ENOUGH = 3  # seeds, below which an interval across seeds says nothing
PARTS = ("simulate", "render", "encode", "act", "learning", "evaluating", "other")
MANY = 15  # comparisons on a task, above which only those with the best are shown


@dataclass(frozen=True)
class Curve:
    """A metric of a group over environment steps."""

    steps: Sequence[int]
    mean: Floats
    low: Floats
    high: Floats
    band: str
    """What `low` to `high` is, in words; empty for the return of a single seed."""
    seeds: Sequence[tuple[Sequence[int], Sequence[float]]]
    """Every run's own curve."""
    short: Sequence[Result]
    """Runs that are not in the mean because they ended before the others."""


def reach(group: Group, metric: str) -> int:
    """Environment steps that a group got to with this metric: the least of its finished runs, or the most of
    any run if none is finished; 0 without measurements after training began."""
    ends = [(run.status, run.series(metric)[0][-1]) for run in group.runs if run.series(metric)[0]]
    finished = [step for status, step in ends if status == "finished"]
    return min(finished) if finished else max((step for _, step in ends), default=0)


def curve(group: Group, metric: str) -> Curve | None:
    """The mean over the seeds that got as far as the group (`reach`), in their common range; None if the
    metric was never measured."""
    measured = [(run, run.series(metric)) for run in group.runs if run.series(metric)[0]]
    if not measured:
        return None
    end = reach(group, metric)
    whole = [series for _, series in measured if series[0][-1] >= end]
    grid, values = align(whole)
    if len(whole) >= ENOUGH and len(grid):
        low, high = mean_band(values)
        band = "95 % bootstrap interval of the mean over seeds"
    elif len(whole) == 1 and (counted := _counted(next(r for r, s in measured if s is whole[0]), metric)):
        low, high = 100 * np.array(counted).T
        band = "of a single seed, 95 % Wilson interval of each point's episodes"
    else:
        low, high = values.min(axis=0), values.max(axis=0)
        band = "lowest to highest seed" if len(whole) > 1 else ""
    return Curve(
        grid.tolist(),
        values.mean(axis=0),
        low,
        high,
        band,
        [series for _, series in measured],
        [run for run, series in measured if series[0][-1] < end],
    )


def _counted(run: Result, metric: str) -> list[tuple[float, float]]:
    """Wilson intervals of each point of a success; empty of a return."""
    if "/return" in metric:
        return []
    rows = [row.metrics for row in run.rows if metric in row.metrics]
    found = [_measured(metric, m[metric], m.get(_episodes(metric), 0.0)) for m in rows]
    return [wilson(m.wins, m.episodes) for m in found] if all(m.episodes for m in found) else []


@dataclass(frozen=True)
class Measured:
    """Success of one run at one moment, or its return."""

    value: float
    """Percent; a return as it is."""
    wins: int
    """0 of a return."""
    episodes: int


def at(run: Result, metric: str, step: int) -> Measured | None:
    """The last measurement at or before `step`; None for a run that did not get there."""
    steps, _ = run.series(metric)
    if not steps or steps[-1] < step or steps[0] > step:
        return None
    row = [row for row in run.rows if metric in row.metrics and row.step <= step][-1]
    return _measured(metric, row.metrics[metric], row.metrics.get(_episodes(metric), 0.0))


def _episodes(metric: str) -> str:
    """`eval/success` -> `eval/episodes`, `final/success_sampled` -> `final/episodes_sampled`"""
    space = metric.partition("/")[0]
    return f"{space}/episodes" + ("_sampled" if metric.endswith("_sampled") else "")


def _measured(metric: str, value: float, episodes: float) -> Measured:
    wins = 0 if "/return" in metric else round(value / 100 * episodes)
    return Measured(value, wins, round(episodes))


def last(run: Result, metric: str) -> Measured | None:
    """The last measurement; None without any."""
    found = [row.metrics for row in run.rows if metric in row.metrics]
    return _measured(metric, found[-1][metric], found[-1].get(_episodes(metric), 0.0)) if found else None


@dataclass(frozen=True)
class Effort:
    """What a group's training took."""

    samples: tuple[int, int]
    """Least and most environment steps of a seed."""
    hours: float
    """Wall-clock, mean over seeds."""
    speed: float
    """Environment steps per second of training, all included; 0 for runs without training."""


def effort(group: Group) -> Effort:
    """Of the runs that got as far as to measure anything, or of all if none did."""
    began = group.measured or group.runs
    steps = [run.steps for run in began]
    seconds = sum(run.seconds for run in began)
    samples = (min(steps), max(steps))
    return Effort(samples, seconds / 3600 / len(began), sum(steps) / seconds if seconds else 0.0)


@dataclass(frozen=True)
class Final:
    """Where a group ended, episodes pooled over seeds; percent."""

    group: Group
    source: str
    """Metric of `success`: `final/success`, else `eval/success`; empty without evaluations."""
    seeds: int
    """Runs that `success` is from."""
    wins: int
    episodes: int
    success: float | None
    low: float
    high: float
    rrl: float | None
    """Success under the RRL authors' rule."""
    sampled: float | None
    sampled_source: str
    blind: float | None
    """Success of the blind control."""
    effort: Effort

    @property
    def scores(self) -> list[float]:
        """Success of each seed, percent."""
        return [m.value for run in self.group.runs if (m := last(run, self.source))] if self.source else []


def final(group: Group) -> Final:
    """Runs with a final evaluation are pooled; those without are left out, unless none has one."""

    def pooled(metric: str) -> tuple[list[Measured], float | None]:
        found = [m for run in group.runs if (m := last(run, metric))]
        total = sum(m.episodes for m in found)
        if total:
            return found, 100 * sum(m.wins for m in found) / total
        return found, float(np.mean([m.value for m in found])) if found else None

    source = next((m for m in (FINAL, EVAL) if pooled(m)[0]), "")
    found, success = pooled(source)
    wins, episodes = sum(m.wins for m in found), sum(m.episodes for m in found)
    low, high = wilson(wins, episodes)
    space = source.partition("/")[0]
    rrl = [(run.last(f"{space}/success_rrl"), last(run, source)) for run in group.runs]
    weighed = [(value, m.episodes or 1) for value, m in rrl if value is not None and m]
    sampled = next((m for m in (f"{FINAL}_sampled", f"{EVAL}_sampled", TRAIN) if pooled(m)[0]), "")
    blind = [value for run in group.runs if (value := run.last("final/blind_success")) is not None]
    return Final(
        group,
        source,
        len(found),
        wins,
        episodes,
        success,
        100 * low,
        100 * high,
        sum(v * n for v, n in weighed) / sum(n for _, n in weighed) if weighed else None,
        pooled(sampled)[1],
        sampled,
        float(np.mean(blind)) if blind else None,
        effort(group),
    )


@dataclass(frozen=True)
class Reached:
    """When a group's training curve first showed a success rate."""

    group: Group
    threshold: float
    firsts: Sequence[int | None]
    """Environment steps, for each seed that got there or trained as long as the group did."""
    median: float | None
    trained: int
    """Steps that the group trained for."""


def reached(group: Group, threshold: float) -> Reached:
    """First update whose training episodes reach `threshold` percent, for each seed."""
    series = [run.series(TRAIN) for run in group.runs if run.series(TRAIN)[0]]
    firsts = [(first_at(*s, threshold), s[0][-1]) for s in series]
    # A seed that stopped early tells nothing about later.
    trained = reach(group, TRAIN)
    known = [first for first, end in firsts if first is not None or end >= trained]
    return Reached(group, threshold, known, median_reached(known), trained)


def common(groups: Sequence[Group]) -> tuple[str, int]:
    """(metric, steps) at which groups can be compared: the most samples that all that trained got to, with
    `eval/success` if all of them measured it, else `train/success`; with the return where tasks have no
    success. 0 steps: there is no such moment."""
    train, evaluation = CURVES[kind(groups)]
    training = [g for g in groups if reach(g, train) > 0]
    metric = evaluation if all(reach(g, evaluation) > 0 for g in training) else train
    return metric, min((reach(g, metric) for g in training), default=0)


@dataclass(frozen=True)
class Aggregate:
    """A method over tasks and seeds: interquartile means, percent, with 95 % intervals."""

    groups: Sequence[Group]
    end: tuple[float, float, float] | None
    """(iqm, low, high); the interval is nan where no task has a second seed."""
    equal: tuple[float, float, float] | None
    scores: int
    """Values (tasks x seeds) in `end`."""


def aggregates(report: Report) -> tuple[list[Aggregate], str, int]:
    """(one for each method, metric at equal samples, steps there), for tasks with success."""
    report = report.counted
    metric, step = common(report.groups)

    def of(strata: Sequence[Sequence[float]]) -> tuple[float, float, float] | None:
        strata = [s for s in strata if s]
        if not strata:
            return None
        mean = float(iqm(np.concatenate([np.asarray(s, float) for s in strata])))
        return mean, *(bootstrap(strata) if max(map(len, strata)) > 1 else (math.nan, math.nan))

    found = []
    for groups in report.methods.values():
        ends = [final(group).scores for group in groups]
        equal = [
            [m.value for run in g.runs if (m := at(run, metric, step))] if step and reach(g, TRAIN) else []
            for g in groups
        ]
        found.append(Aggregate(groups, of(ends), of(equal), sum(map(len, ends))))
    return found, metric, step


@dataclass(frozen=True)
class Pair:
    """Two groups of a task at equal samples: first minus second, percentage points, or returns."""

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


def pairs(groups: Sequence[Group]) -> tuple[list[Pair], str, int]:
    """(comparisons, metric, steps) of the groups of one task that trained; with many of them, only those
    with the best one."""
    metric, step = common(groups)
    if not step:
        return [], metric, step
    scores = [(g, {seed_of(run): m for run in g.runs if (m := at(run, metric, step))}) for g in groups]
    train = CURVES[kind(groups)][0]
    scores = [(group, found) for group, found in scores if found and reach(group, train)]
    couples = list(combinations(scores, 2))
    if len(couples) > MANY:
        best = max(scores, key=lambda s: float(np.mean([m.value for m in s[1].values()])))
        couples = [(best, other) for other in scores if other is not best]
    counted = kind(groups) == "success"
    return [_pair(*a, *b, counted) for a, b in couples], metric, step


def _pair(a: Group, of_a: dict[int, Measured], b: Group, of_b: dict[int, Measured], counted: bool) -> Pair:
    both = sorted(of_a.keys() & of_b.keys())
    paired = of_a.keys() == of_b.keys() or len(both) >= ENOUGH
    x = [of_a[s] for s in both] if paired else list(of_a.values())
    y = [of_b[s] for s in both] if paired else list(of_b.values())
    left, right = [m.value for m in x], [m.value for m in y]
    if min(len(x), len(y)) >= ENOUGH:
        gap, low, high = difference(left, right, paired=paired)
        how = "bootstrap over pairs of seeds" if paired else "bootstrap over seeds"
    elif not counted:
        gap, low, high = float(np.mean(left) - np.mean(right)), math.nan, math.nan
        how = f"fewer than {ENOUGH} seeds: no interval"
    else:
        counts = [sum(m.wins for m in x), sum(m.episodes for m in x)]
        counts += [sum(m.wins for m in y), sum(m.episodes for m in y)]
        gap = float(np.mean(left) - np.mean(right))
        low, high = (100 * end for end in newcombe(*counts))
        how = "Newcombe: episodes alone, not seeds"
    return Pair(a, b, gap, low, high, how, improvement(left, right), (len(x), len(y)), paired)


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
    rows = [metrics for run in group.runs for metrics in _timed(run)]

    def mean(name: str) -> float:
        return float(np.mean([row.get(f"time/{name}", 0.0) for row in rows])) if rows else 0.0

    seconds = {part: mean(part) for part in PARTS[:4]}
    sampling = mean("sampling")
    other = max(0.0, sampling - sum(seconds.values()))
    seconds["learning"] = mean("policy_update") + mean("value_fit") + mean("update")
    seconds["evaluating"] = max(0.0, mean("iteration") - sampling - seconds["learning"])
    seconds["other"] = other
    devices = dict.fromkeys(_device(run) for run in group.all_runs if run.tags)
    return Compute(group, seconds, sum(run.seconds for run in group.all_runs) / 3600, list(devices))


def _timed(run: Result) -> Iterator[Mapping[str, float]]:
    """The metrics of its updates. Agents that learn at every step time all steps and updates of a round
    together (`time/steps_per_second`); without `time/update`, that is their sampling."""
    before = 0
    for row in run.rows:
        metrics, made, before = row.metrics, row.step - before, row.step
        if "time/iteration" not in metrics:
            continue
        if "time/update" in metrics and metrics.get("time/steps_per_second"):
            whole = made / metrics["time/steps_per_second"]
            metrics = {**metrics, "time/sampling": max(0.0, whole - metrics["time/update"])}
        yield metrics


def _device(run: Result) -> str:
    kind = run.params.get("device", "?")
    name = run.tags.get("device", "unknown device")
    return name if kind == "cuda" else f"{name}, {run.params.get('threads', '?')} threads"
