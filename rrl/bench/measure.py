"""Measuring on a shared, noisy machine: everything is timed in turn, and ratios are taken within a turn."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from rrl.machine.console import duration
from rrl.registry import UserError
from rrl.store import files

Facts = Mapping[str, str | int | float]
REFERENCE = "reference"
PACKAGES = ("rrl", "torch", "openvino", "mujoco", "numpy")


@dataclass(frozen=True)
class Sample:
    """One timed repeat: the rate, and where the time went (seconds by stage, for as long as it ran)."""

    rate: float
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """Something to time. `run` does one repeat; `facts` (encoder, look, ...) say what it is. `against` names
    the case whose rate in the same turn its ratio is taken over ("" for none)."""

    name: str
    run: Callable[[], Sample]
    facts: Facts = field(default_factory=dict)
    against: str = ""


@dataclass(frozen=True)
class Entry:
    """A timed case: one rate per repeat, and its ratios to the case named `against` of the same repeats."""

    name: str
    unit: str
    facts: Facts
    rates: tuple[float, ...]
    ratios: tuple[float, ...]
    against: str
    seconds: Mapping[str, float]
    """Share of the time by stage, of all repeats together; sums to 1 where the stages cover everything."""

    def row(self) -> dict[str, Any]:
        """As JSON: medians, quartiles and all repeats."""
        row: dict[str, Any] = {"name": self.name, **self.facts, self.unit: _median(self.rates)}
        row["quartiles"] = _quartiles(self.rates)
        row["repeats"] = list(self.rates)
        if self.against:
            row |= {"against": self.against, "ratio": _median(self.ratios)}
            row["ratio_quartiles"] = _quartiles(self.ratios)
        return row | {"split": dict(self.seconds)}


def interleave(
    cases: Sequence[Case], repeats: int, unit: str, progress: Callable[[str], None] = lambda text: None
) -> list[Entry]:
    """Time all cases in turn, `repeats` times: a slow minute of the machine slows all of them."""
    samples: dict[str, list[Sample]] = {case.name: [] for case in cases}
    turns, began = repeats * len(cases), time.monotonic()
    for done in range(turns):
        case = cases[done % len(cases)]
        text = f"{done + 1} of {turns}: {case.name}"
        if done >= len(cases):  # cases differ: one turn of all tells
            text += f", {duration((time.monotonic() - began) * (turns - done) / done)} left"
        progress(text)
        samples[case.name].append(case.run())
    entries = []
    for case in cases:
        mine = samples[case.name]
        rates = tuple(s.rate for s in mine)
        ratios = tuple(s.rate / r.rate for s, r in zip(mine, samples.get(case.against, []), strict=False))
        total = sum(sum(s.seconds.values()) for s in mine) or 1.0
        stages = dict.fromkeys(name for s in mine for name in s.seconds)
        split = {name: sum(s.seconds.get(name, 0.0) for s in mine) / total for name in stages}
        entries.append(Entry(case.name, unit, case.facts, rates, ratios, case.against, split))
    return entries


def rate(work: Callable[[], object], count: int, least: float = 0.0) -> float:
    """`count` per second of `work`, called again until `least` seconds have passed. Warm it up before."""
    done, start = 0, time.perf_counter()
    while True:
        work()
        done += count
        passed = time.perf_counter() - start
        if passed >= least:
            return done / passed


def machine() -> dict[str, Any]:
    """What was measured on: processor, cores, memory, versions."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    facts: dict[str, Any] = {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "system": platform.platform(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        info = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        facts["processor"] = info.get("model name", facts["processor"])
        flags = set(info.get("flags", "").split())
        wanted = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
        facts["instructions"] = [name for name in wanted if name in flags]
    except OSError:
        pass  # no Linux: the platform's own words must do
    return facts | {"versions": versions}


def write(path: Path, settings: Facts, entries: Sequence[Entry]) -> None:
    """The JSON file: {"machine", "settings", "entries"}. Never over an existing file."""
    text = json.dumps(
        {"machine": machine(), "settings": dict(settings), "entries": [e.row() for e in entries]}, indent=1
    )
    if path.exists():
        raise UserError(f"{path} exists: give --json another name, or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, text + "\n")


def show(entries: Sequence[Entry], console: Console, title: str) -> None:
    """A table of what was measured: median, quartiles, ratio, split."""
    table = Table(title=title, title_justify="left")
    table.add_column("case")
    table.add_column(entries[0].unit.replace("_", " "), justify="right")
    table.add_column("quartiles", justify="right")
    against = list(dict.fromkeys(e.against for e in entries if e.against))
    table.add_column(
        f"times {against[0]}'s speed (quartiles)" if len(against) == 1 else "ratio (quartiles)", justify="right"
    )
    table.add_column("time spent in")
    for e in entries:
        low, high = _quartiles(e.rates)
        ratio = ""
        if e.against:
            a, b = _quartiles(e.ratios)
            ratio = f"{_median(e.ratios):.2f} ({a:.2f} to {b:.2f})" + (f" of {e.against}" if len(against) > 1 else "")
        split = "  ".join(f"{name} {100 * share:.0f} %" for name, share in e.seconds.items())
        table.add_row(e.name, _number(_median(e.rates)), f"{_number(low)} to {_number(high)}", ratio, split)
    console.print(table)


def reference(name: str) -> ModuleType:
    """The module `benchmarks/NAME.py`: of the checkout, or as packaged with the wheel."""
    package = Path(__file__).parents[1]
    for folder in (package.parent / "benchmarks", package / "_benchmarks"):
        path = folder / f"{name}.py"
        if path.exists():
            spec = spec_from_file_location(f"rrl_benchmarks_{name}", path)
            assert spec is not None and spec.loader is not None
            module = module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise FileNotFoundError(f"benchmarks/{name}.py is neither in the checkout nor in the package")


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    return float(np.quantile(values, 0.25)), float(np.quantile(values, 0.75))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
