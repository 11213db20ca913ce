"""Intervals for success rates, summaries of curves, and comparisons of methods over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 5000
Z95 = 1.959963984540054
"""Standard normal quantile of 0.975, as scipy.special's `ndtri` gives it, which takes a third of a second to import."""


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion, as fractions; (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    # Closed form: scipy.stats has it too (a test compares), but takes two seconds of every run to import.
    share, ratio = successes / trials, Z95 * Z95 / trials
    centre = (share + ratio / 2) / (1 + ratio)
    half = Z95 / (1 + ratio) * math.sqrt(share * (1 - share) / trials + ratio / (4 * trials))
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == trials else centre + half)


def area(steps: Sequence[float], values: Sequence[float]) -> float:
    """Mean height of a curve: the area under its straight lines between points, over its length in steps.

    One point: its value. Steps must not fall.
    """
    length = steps[-1] - steps[0]
    return float(np.trapezoid(values, steps) / length) if length > 0 else float(np.mean(values))


def newcombe(wins_a: int, trials_a: int, wins_b: int, trials_b: int) -> tuple[float, float]:
    """95 % interval of the difference a - b of two independent proportions, as fractions: Newcombe's score
    interval (1998, method 10), made of both Wilson intervals; (-1, 1) if either has no trials."""
    if trials_a == 0 or trials_b == 0:
        return -1.0, 1.0
    a, b = wins_a / trials_a, wins_b / trials_b
    (low_a, high_a), (low_b, high_b) = wilson(wins_a, trials_a), wilson(wins_b, trials_b)
    low = a - b - float(np.hypot(a - low_a, high_b - b))
    return low, a - b + float(np.hypot(high_a - a, b - low_b))


def iqm(values: Floats | Sequence[float], axis: int = -1) -> Floats:
    """Interquartile mean along an axis: without the lowest and highest quarter (rounded down, so that fewer
    than four values are simply averaged)."""
    # scipy.stats has it as `trim_mean` (a test compares), but takes a second of every report to import.
    ordered = np.sort(np.asarray(values, float), axis=axis)
    count = ordered.shape[axis]
    mean: Floats = np.asarray(ordered.take(range(count // 4, count - count // 4), axis=axis).mean(axis=axis))
    return mean


def bootstrap(
    strata: Sequence[Sequence[float]],
    statistic: Callable[[Floats], Floats] = iqm,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Stratified percentile bootstrap interval: seeds are drawn anew within each stratum (a task).

    `statistic` maps the pooled values [resamples, n] to [resamples]. Strata must not be empty.
    """
    rng = np.random.default_rng(seed)
    drawn = [np.asarray(s, float)[rng.integers(len(s), size=(resamples, len(s)))] for s in strata]
    tail = (1 - confidence) / 2
    low, high = np.quantile(statistic(np.concatenate(drawn, axis=1)), [tail, 1 - tail])
    return float(low), float(high)


def mean_band(values: Floats, *, resamples: int = 2000, seed: int = 0) -> tuple[Floats, Floats]:
    """95 % percentile bootstrap band of the mean over seeds, at each point of curves [seeds, points]."""
    rng = np.random.default_rng(seed)
    count = len(values)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=resamples) / count
    low, high = np.quantile(weights @ values, [0.025, 0.975], axis=0)
    return low, high


def difference(
    a: Sequence[float], b: Sequence[float], *, paired: bool, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """(mean of a - mean of b, low, high): 95 % percentile bootstrap over pairs, or over each side by itself.

    ValueError for pairs of different length.
    """
    x, y = np.asarray(a, float), np.asarray(b, float)
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(x), size=(resamples, len(x)))
    if paired and len(x) != len(y):
        raise ValueError(f"pairs need as many values on both sides, got {len(x)} and {len(y)}")
    others = rows if paired else rng.integers(len(y), size=(resamples, len(y)))
    low, high = np.quantile(x[rows].mean(1) - y[others].mean(1), [0.025, 0.975])
    return float(x.mean() - y.mean()), float(low), float(high)


def paired_proportions(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    """(share of a - share of b, low, high) of pairs of successes, 1 or 0: 95 %, Bonett and Price's adjusted Wald
    interval (2012), which does not shrink to nothing where all pairs agree.

    ValueError for different lengths.
    """
    x, y = np.asarray(a, bool), np.asarray(b, bool)
    if len(x) != len(y):
        raise ValueError(f"pairs need as many values on both sides, got {len(x)} and {len(y)}")
    gained, lost, n = int((x & ~y).sum()), int((~x & y).sum()), len(x)
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = Z95 * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return (gained - lost) / n, max(up - down - half, -1.0), min(up - down + half, 1.0)


def improvement(a: Sequence[float], b: Sequence[float]) -> float:
    """Probability that a random value of `a` exceeds a random one of `b`, ties counting half: Mann-Whitney's
    U over the number of combinations (Agarwal et al. 2021)."""
    gaps = np.asarray(a, float)[:, None] - np.asarray(b, float)[None, :]
    return float(np.mean((gaps > 0) + 0.5 * (gaps == 0)))


def first_at(steps: Sequence[int], values: Sequence[float], threshold: float) -> int | None:
    """The first step at which a measured value is at least `threshold`; None if none is."""
    return next((s for s, v in zip(steps, values, strict=True) if v >= threshold), None)


def median_reached(firsts: Sequence[float | None]) -> float | None:
    """Median of `first_at` over seeds, those that never got there counting as infinitely late; None if it is
    infinite itself."""
    median = float(np.median([np.inf if f is None else f for f in firsts])) if firsts else np.inf
    return median if np.isfinite(median) else None


def align(curves: Sequence[tuple[Sequence[float], Sequence[float]]]) -> tuple[NDArray[Any], Floats]:
    """Curves (places, values) on one grid: (grid [points], values [curves, points]). Whole numbers stay whole.

    The grid is every place of any curve inside the range that all of them cover; between its own points a
    curve is a straight line, beyond its ends it is never continued. Without a common range: no points.
    """
    if not curves or any(len(places) == 0 for places, _ in curves):
        return np.zeros(0, np.int64), np.zeros((len(curves), 0))
    low, high = max(places[0] for places, _ in curves), min(places[-1] for places, _ in curves)
    grid = np.unique(np.concatenate([np.asarray(places) for places, _ in curves]))
    grid = grid[(grid >= low) & (grid <= high)]
    return grid, np.stack([np.interp(grid, places, values) for places, values in curves])
