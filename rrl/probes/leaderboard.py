"""The result of a probe: one row for each entrant, best first, as a table and as CSV."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rrl.evaluators.outcomes import Outcome
from rrl.probes.entrants import Entrant
from rrl.probes.measure import KINDS, NOMINAL, Measuring
from rrl.store import tables

LEGEND = (
    "Best first: by what clones reach with their mean action, then by R2, whether intervals overlap or not (95 %, in",
    "brackets, over all clones' episodes); leaderboard.csv has paired differences from the first encoder.",
    "R2: mean over the task's quantities (not the robot's joints), in held-out episodes, by linear probes of features;",
    "mlp: by a network; moving: of their change, from two pictures; changed: under the worst visual change.",
    "*: a control, whose probes and clones get no pictures, but (blind) the robot's joints, or the whole state.",
    "pictures/s: on this machine, when the row was made.",
)


@dataclass(frozen=True)
class Row:
    """What is known of an entrant so far."""

    entrant: Entrant
    cost: Mapping[str, Any] = field(default_factory=dict)
    probes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """R^2 by way of probing and quantity."""
    drift: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    """By kind of action."""
    clones: int = 0
    """Those that are done."""
    time: int = 0
    """When the newest piece was done, in ms since 1970."""
    task: tuple[str, ...] = ()
    """Quantities of the task, not of the robot."""

    def r2(self, way: str) -> float | None:
        """Mean R^2 over the task's quantities."""
        return _mean(self.probes.get(way, {}), self.task)

    def changed(self, change: str) -> float | None:
        """Mean R^2 over the task's quantities of the linear probes under a visual change."""
        return _mean(self.drift.get(change, {}).get("r2", {}), self.task)

    @property
    def worst_change(self) -> tuple[float, str] | None:
        """The lowest R^2 under any visual change, and under which."""
        found = [(value, change) for change in self.drift if (value := self.changed(change)) is not None]
        return min((pair for pair in found if pair[1] != NOMINAL), default=None)


def _mean(values: Mapping[str, float], names: Sequence[str]) -> float | None:
    known = [values[name] for name in names if name in values]
    return float(np.mean(known)) if known else None


def rows(measuring: Measuring) -> list[Row]:
    """Best first; who can't be compared yet comes last."""
    found = [_row(measuring, entrant) for entrant in measuring.entrants]

    def worth(row: Row) -> tuple[float, float]:
        mean, seen = row.outcomes.get("mean"), row.r2("linear")
        return (mean.mean if mean else -np.inf, seen if seen is not None else -np.inf)

    return sorted(found, key=worth, reverse=True)


def _row(measuring: Measuring, entrant: Entrant) -> Row:
    if entrant.run is None:
        return Row(entrant)

    times = [0]

    def known(key: Mapping[str, Any]) -> dict[str, Any]:
        piece = measuring.pieces.get(key) or {"result": {}, "time": 0}
        times.append(piece["time"])
        result: dict[str, Any] = piece["result"]
        return result

    score = entrant.experiment.env.score
    done = [clone for k in range(measuring.probe.clones) if (clone := known(measuring.clone_key(entrant, k)))]
    outcomes = {
        kind: Outcome([float(value) for clone in done for value in clone[kind][score.name]], score)
        for kind in KINDS
        if done
    }
    probes = known(measuring.probes_key(entrant))
    task = [q.name for q in measuring.material.quantities if not q.robot]
    drift = known(measuring.drift_key(entrant)) if entrant.sees else {}
    cost = known(measuring.cost_key(entrant))
    return Row(entrant, cost, probes, drift, outcomes, len(done), max(times), tuple(task))


def table(found: Sequence[Row], console: Console) -> None:
    """Print it: what a terminal has room for."""
    score = next((o.score for row in found for o in row.outcomes.values()), None)
    unit = " %" if score is None or score.counted else ""
    columns: dict[str, Callable[[Row], str]] = {
        "encoder": lambda row: row.entrant.label + (" *" if row.entrant.role == "control" else ""),
        f"mean{unit}": lambda row: "see below" if row.entrant.reason else str(row.outcomes.get("mean", "")),
        f"sampled{unit}": lambda row: str(row.outcomes.get("sampled", "")),
        "R2": lambda row: _number(row.r2("linear")),
        "R2 mlp": lambda row: _number(row.r2("mlp")),
        "R2 moving": lambda row: _number(row.r2("linear_change")),
        "R2 changed": lambda row: f"{worst[0]:.2f} ({worst[1]})" if (worst := row.worst_change) else "",
        "pictures/s": lambda row: f"{row.cost['pictures_per_second']:.0f}" if row.entrant.sees and row.cost else "",
        "GMAC": lambda row: f"{row.cost['multiply_adds'] / 1e9:.2f}" if row.entrant.sees and row.cost else "",
        "M params": lambda row: f"{row.cost['parameters'] / 1e6:.1f}" if row.entrant.sees and row.cost else "",
        "dim": lambda row: str(row.cost["dim"]) if row.entrant.sees and row.cost else "",
    }
    texts = [[text(row) for text in columns.values()] for row in found]
    widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
    kept = len(widths)
    while console.is_terminal and kept > 3 and sum(widths[:kept]) + 2 * kept > console.width:
        kept -= 1  # from the right: leaderboard.csv has all
    drawn = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for number, (name, width) in enumerate(zip(columns, widths[:kept], strict=False)):
        drawn.add_column(name, justify="right" if number else "left", no_wrap=True, width=width)
    for line in texts:
        drawn.add_row(*map(escape, line[:kept]))
    Console(file=console.file, width=sum(widths[:kept]) + 3 * kept).print(drawn)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def as_csv(found: Sequence[Row]) -> str:
    """Everything that is known, a line for each entrant."""
    first = next((row for row in found if row.entrant.sees and row.outcomes), None)
    lines = [flat(row) | ({} if first is None else against(row, first)) for row in found]
    names = list(dict.fromkeys(name for line in lines for name in line))
    return tables.csv_of(names, lines)


def flat(row: Row) -> dict[str, Any]:
    """A row as named values: words first, then numbers."""
    entrant = row.entrant
    line: dict[str, Any] = {"encoder": entrant.label, "role": entrant.role, "problem": entrant.reason}
    line |= {"notes": "; ".join(entrant.notes), "weights": entrant.facts.get("weights", "")}
    if entrant.run is not None and entrant.sees:
        line |= {"backend": entrant.run.config.backend, "precision": entrant.run.config.precision}
    return line | numbers(row)


def against(row: Row, first: Row) -> dict[str, float]:
    """How far a row is from the first encoder's, episode by episode, since both acted in the same ones: mean and 95 %
    interval, in the score's unit."""
    found: dict[str, float] = {}
    for kind, outcome in row.outcomes.items():
        other = first.outcomes[kind]
        if row is not first and len(outcome.values) == len(other.values):
            ends = zip(("", "_low", "_high"), outcome.minus(other), strict=True)
            found |= {f"clones/{kind}_minus_first{end}": value for end, value in ends}
    return found


def numbers(row: Row) -> dict[str, float]:
    """Everything measured, by name."""
    found: dict[str, float] = {}
    for kind, outcome in row.outcomes.items():
        low, high = outcome.interval
        found |= {f"clones/{kind}": outcome.mean, f"clones/{kind}_low": low, f"clones/{kind}_high": high}
        found[f"clones/{kind}_episodes"] = len(outcome.values)
    if row.clones:
        found["clones"] = row.clones
    for way, values in row.probes.items():
        mean = row.r2(way)
        found |= {} if mean is None else {f"r2/{way}": mean}
        found |= {f"r2/{way}/{name}": value for name, value in values.items()}
    for change, under in row.drift.items():
        mean = row.changed(change)
        told = "nominal" if change == NOMINAL else change
        found |= {f"moved/{told}": under["moved"]} | ({} if mean is None else {f"r2/under/{told}": mean})
        found |= {f"r2/under/{told}/{name}": value for name, value in under["r2"].items()}
    return found | {f"cost/{name}": value for name, value in row.cost.items()}
