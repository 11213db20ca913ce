"""Intervals and summaries against closed forms, published numbers and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rrl.statistics import (
    align,
    area,
    bootstrap,
    difference,
    first_at,
    improvement,
    iqm,
    mean_band,
    median_reached,
    newcombe,
    paired_proportions,
    wilson,
)


@pytest.mark.parametrize(("wins", "trials"), [(0, 25), (13, 25), (25, 25), (193, 200)])
def test_wilson_solves_its_quadratic(wins: int, trials: int) -> None:
    z = stats.norm.ppf(0.975)
    for end in wilson(wins, trials):  # |p - end| = z * sqrt(end (1 - end) / n)
        gap = abs(wins / trials - end)
        assert gap == pytest.approx(z * math.sqrt(max(end * (1 - end), 0) / trials), abs=1e-9)


def test_nothing_is_known_without_trials() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert newcombe(0, 0, 5, 10) == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table II, method 10.
    [((56, 70, 48, 80), 0.0524, 0.3339), ((9, 10, 3, 10), 0.1705, 0.8090), ((0, 10, 0, 10), -0.2775, 0.2775)],
)
def test_newcombe_gives_the_published_intervals(counts: tuple[int, int, int, int], low: float, high: float) -> None:
    assert newcombe(*counts) == pytest.approx((low, high), abs=5e-5)


def test_newcombe_turns_its_sign() -> None:
    low, high = newcombe(20, 25, 11, 50)
    assert newcombe(11, 50, 20, 25) == pytest.approx((-high, -low))


@given(st.lists(st.floats(0, 100), min_size=1, max_size=25))
def test_iqm_is_the_mean_of_the_middle(values: list[float]) -> None:
    cut = len(values) // 4
    middle = sorted(values)[cut : len(values) - cut]
    assert float(iqm(values)) == pytest.approx(sum(middle) / len(middle), abs=1e-9)
    assert float(iqm(values)) == pytest.approx(float(stats.trim_mean(values, 0.25)), abs=1e-9)


def test_iqm_by_hand() -> None:
    assert float(iqm([0.0, 10.0, 20.0, 1000.0])) == 15.0
    assert iqm(np.array([[0.0, 10, 20, 1000], [4.0, 3, 2, 1]])).tolist() == [15.0, 2.5]


@pytest.mark.parametrize("statistic", ["mean", "iqm"])
def test_bootstrap_of_one_stratum_agrees_with_scipy(statistic: str) -> None:
    values = np.random.default_rng(3).normal(60, 10, size=24)
    function = {"mean": lambda x, axis=-1: np.mean(x, axis=axis), "iqm": iqm}[statistic]
    ours = bootstrap([values.tolist()], function, resamples=20_000)
    theirs = stats.bootstrap(
        (values,),
        function,
        method="percentile",
        n_resamples=20_000,
        vectorized=True,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.25)  # of an interval 8 wide


def test_strata_are_resampled_by_themselves() -> None:
    # Drawing from all values together would mix the levels, and the interval of the mean would be wide.
    apart = [[10.0, 10.0, 10.0], [90.0, 90.0, 90.0]]
    assert bootstrap(apart, lambda x: x.mean(-1)) == (50.0, 50.0)


def test_bootstrap_repeats_itself() -> None:
    assert bootstrap([[1, 2, 3], [4, 7]]) == bootstrap([[1, 2, 3], [4, 7]])
    many = np.random.default_rng(0).uniform(size=20).tolist()
    assert bootstrap([many], seed=1) != bootstrap([many], seed=2)


def test_mean_band_is_the_bootstrap_at_each_point() -> None:
    values = np.random.default_rng(0).uniform(0, 100, size=(6, 3))
    low, high = mean_band(values, resamples=20_000)
    for point in range(3):
        expected = bootstrap([values[:, point].tolist()], lambda x: x.mean(-1), resamples=20_000)
        assert (low[point], high[point]) == pytest.approx(expected, abs=1.5)


def test_pairing_takes_out_what_pairs_share() -> None:
    level = np.random.default_rng(5).normal(50, 20, size=12)
    gap, low, high = difference(level + 2, level, paired=True)
    assert (gap, low, high) == pytest.approx((2, 2, 2))
    _, low, high = difference((level + 2).tolist(), level.tolist(), paired=False)
    half = 1.96 * math.sqrt(2 * level.var() / 12)  # of the normal approximation
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)
    with pytest.raises(ValueError, match="as many"):
        difference([1.0, 2.0, 3.0], [1.0, 2.0], paired=True)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_improvement_is_mann_whitney(a: list[int], b: list[int]) -> None:
    assert improvement(a, b) == pytest.approx(stats.mannwhitneyu(a, b).statistic / len(a) / len(b))


def test_first_at_takes_measurements_not_lines_between_them() -> None:
    steps, values = [0, 100, 200, 300], [10.0, 49.9, 90.0, 40.0]
    assert first_at(steps, values, 50) == 200  # the line crosses 50 just after 100
    assert first_at(steps, values, 90) == 200
    assert first_at(steps, values, 90.1) is None
    assert first_at([], [], 50) is None


def test_median_counts_who_never_arrived() -> None:
    assert median_reached([100, None, 300]) == 300
    assert median_reached([100, None]) is None
    assert median_reached([100, 300]) == 200
    assert median_reached([]) is None


CURVES = st.lists(
    st.lists(st.tuples(st.integers(0, 50), st.floats(0, 100)), min_size=1, max_size=8, unique_by=lambda p: p[0]),
    min_size=1,
    max_size=4,
)


@given(CURVES)
def test_alignment_never_extrapolates(points: list[list[tuple[int, float]]]) -> None:
    curves = [tuple(zip(*sorted(curve), strict=True)) for curve in points]
    grid, values = align([(list(steps), list(heights)) for steps, heights in curves])
    assert values.shape == (len(curves), len(grid))
    for (steps, heights), row in zip(curves, values, strict=True):
        for step, value in zip(grid, row, strict=True):
            assert steps[0] <= step <= steps[-1]
            right = next(i for i, s in enumerate(steps) if s >= step)
            if steps[right] == step:
                assert value == pytest.approx(heights[right])
            else:
                share = (step - steps[right - 1]) / (steps[right] - steps[right - 1])
                between = heights[right - 1] + share * (heights[right] - heights[right - 1])
                assert value == pytest.approx(between, abs=1e-9)


def test_alignment_without_common_range_is_empty() -> None:
    grid, values = align([([0, 10], [1.0, 2.0]), ([20, 30], [1.0, 2.0])])
    assert (len(grid), values.shape) == (0, (2, 0))
    assert align([])[1].shape == (0, 0)
    assert align([([], [])])[1].shape == (1, 0)


def test_area_of_a_triangle() -> None:
    assert area([0, 10, 30], [0.0, 60.0, 0.0]) == pytest.approx(30.0)
    assert area([5], [42.0]) == 42.0


@pytest.mark.parametrize(("wins", "trials"), [(0, 5), (5, 5), (1, 200), (57, 60), (200, 1000)])
def test_wilson_is_scipys(wins: int, trials: int) -> None:
    interval = stats.binomtest(wins, trials).proportion_ci(0.95, method="wilson")
    assert wilson(wins, trials) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_paired_proportions_hold_the_truth_and_turn_their_sign() -> None:
    """Bonett and Price: 95 % of intervals hold the difference, of small samples and where pairs hardly ever differ."""
    rng = np.random.default_rng(0)
    for both, only_a, only_b in ((0.5, 0.2, 0.1), (0.9, 0.03, 0.02), (0.1, 0.5, 0.2)):
        held = []
        for drawn in rng.choice(4, size=(1000, 40), p=(both, only_a, only_b, 1 - both - only_a - only_b)):
            a, b = np.isin(drawn, (0, 1)), np.isin(drawn, (0, 2))
            change, low, high = paired_proportions(a.tolist(), b.tolist())
            assert change == pytest.approx(a.mean() - b.mean())
            held.append(low <= only_a - only_b <= high)
        assert np.mean(held) >= 0.93
    change, low, high = paired_proportions([1, 1, 0], [0, 1, 0])
    assert paired_proportions([0, 1, 0], [1, 1, 0]) == pytest.approx((-change, -high, -low))
    assert paired_proportions([1] * 75, [1] * 75)[1] < -0.01
    with pytest.raises(ValueError, match="pairs need"):
        paired_proportions([1.0], [1.0, 0.0])
