"""What a sweep varies: `--grid "DAPG.step_size = (0.02, 0.05)"` and points of such grids."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rrl.config.grammar import Binding, ConfigError, Place, Problem, cut, parse
from rrl.config.words import literal

_NUMBER = r"([-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
_RANGE = re.compile(rf"\s*{_NUMBER}\s*\.\.\s*{_NUMBER}\s*(log)?\s*")

Point = Mapping[str, Any]
"""Field -> value, such as `{"DAPG.step_size": 0.02}`."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high` (both included), whole ones if both ends are; for searches only."""

    low: float
    high: float
    log: bool
    whole: bool


@dataclass(frozen=True)
class Axis:
    """One field and what it takes."""

    field: str
    """As gin names it, scope included: `final/SuccessRate.episodes`."""
    values: tuple[Any, ...] | Range
    place: Place

    def override(self, value: Any) -> str:
        """The gin statement that sets one value."""
        return f"{self.field} = {literal(value)}"


def axis(text: str) -> Axis:
    """An axis from gin syntax: `Field = (value, value, ...)`, or `Field = '0.01 .. 0.1 log'` for searches.

    ConfigError if it is anything else.
    """
    shown = f'--grid "{text}"'
    place = Place(shown, 0, text)
    hint = 'write --grid "Experiment.num_envs = (10, 20)"; for a search also "Experiment.num_envs = \'10 .. 20\'"'
    statements, error = parse(text, shown, numbered=False)
    if error is not None:
        raise ConfigError([error])
    if len(statements) != 1 or not isinstance(statements[0], Binding) or not statements[0].field:
        raise ConfigError([Problem.at(place, "a grid entry binds one field to its values", hint)])
    binding = statements[0]
    ends = _RANGE.fullmatch(binding.value) if isinstance(binding.value, str) else None
    if ends is not None:
        low, high = (float(ends[i].replace("_", "")) for i in (1, 2))
        if not low < high or (ends[3] and low <= 0):
            message = f"a range goes from a smaller to a larger number (log: above 0); got {binding.value!r}"
            raise ConfigError([Problem.at(place, message, hint)])
        whole = all(re.fullmatch(r"[-+]?[\d_]+", ends[i]) for i in (1, 2))
        return Axis(binding.label, Range(low, high, bool(ends[3]), whole), place)
    if not isinstance(binding.value, (list, tuple)) or not binding.value:
        message = f"a grid entry lists the values of {binding.label} in brackets; got {cut(literal(binding.value))}"
        raise ConfigError([Problem.at(place, message, hint)])
    values = tuple(binding.value)
    texts = [literal(value) for value in values]
    twice = next((t for t in texts if texts.count(t) > 1), None)
    if twice is not None:
        raise ConfigError([Problem.at(place, f"{binding.label} is to take {twice} twice", "delete one")])
    return Axis(binding.label, values, place)


def product(axes: Sequence[Axis]) -> Iterator[Point]:
    """Every combination, the last axis fastest; one empty point without axes. ConfigError for a range."""
    for one in axes:
        if isinstance(one.values, Range):
            hint = "list its values in brackets, or add --search random or --search optuna"
            raise ConfigError([Problem.at(one.place, "a range can't be gone through one by one", hint)])
    choices = [one.values for one in axes if not isinstance(one.values, Range)]
    for values in itertools.product(*choices):
        yield {one.field: value for one, value in zip(axes, values, strict=True)}


def draw(axes: Sequence[Axis], rng: np.random.Generator) -> Point:
    """A random point: uniform over listed values, uniform or log-uniform over ranges."""

    def value(of: tuple[Any, ...] | Range) -> Any:
        if not isinstance(of, Range):
            return of[int(rng.integers(len(of)))]
        if of.log:
            drawn = math.exp(rng.uniform(math.log(of.low), math.log(of.high)))
            return min(max(round(drawn), int(of.low)), int(of.high)) if of.whole else drawn
        return int(rng.integers(int(of.low), int(of.high) + 1)) if of.whole else float(rng.uniform(of.low, of.high))

    return {one.field: value(one.values) for one in axes}
