"""Writes docs/settings.md, the paper's table 7.2 from the shipped gin files: which method runs on which task with which
encoder, and the settings of each.

    python scripts/write_settings.py
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stand_ins

from rrl.config import ginfile
from rrl.registry import build

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "settings.md"
RUN = ("num_envs", "iterations", "eval_every", "demos.episodes")
"""Settings beside the agent's own, and those of the environment in which runs of a task differ."""
PAPER = ("adroit_", "ablations/", "mjrl_", "dmc_")
"""How files of the paper's runs begin."""
HEAD = """# What the shipped runs set

The paper's table 7.2, made from the gin files by `python scripts/write_settings.py`: for each family of environments
first the runs (TASK stands for the task's name), then the settings of their agents, and those of the environment in
which runs of a task differ. `a; b: FILE` is a, but b in that file, or in all files of that task; None of
`demos.episodes` is all. `rrl check FILE` prints all that a run uses, `rrl describe AGENT` what a setting means.
"""


@dataclass(frozen=True, eq=False)
class Run:
    """A shipped gin file."""

    name: str
    family: str
    task: str
    encoder: str
    agent: str
    demos: str
    flat: Mapping[str, str]

    @property
    def pattern(self) -> str:
        """Its name without that of the task."""
        return self.name.replace(self.task, "TASK") if self.task in self.name else self.name


def read(name: str) -> Run:
    """The run of a shipped file. (A network's label tells its weights: none of these is untrained.)"""
    config: Any = ginfile.load(name)
    flat = ginfile.flatten(config)
    task = build(config.env).name.partition("_")[2]
    encoder = config.encoder.label().partition(" (")[0]
    demos = (
        "-" if config.demos is None else flat["demos.name"] if flat.get("demos.name", "None") != "None" else "shipped"
    )
    return Run(name, flat["env"], task, encoder, flat["agent"], demos, flat)


def page() -> str:
    """The whole file. Reads files that the working folder must have: see `stand_ins`."""
    names = [name for name in ginfile.shipped() if name.startswith(PAPER)]
    families: dict[str, list[Run]] = defaultdict(list)
    for run in map(read, names):
        families[run.family].append(run)
    return "\n".join([HEAD, *(text for family, runs in families.items() for text in section(family, runs))])


def section(family: str, runs: Sequence[Run]) -> list[str]:
    """Lines about the environments of one class."""
    patterns: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        patterns[run.pattern].append(run)
    rows = [
        [f"`{pattern}`", alike[0].encoder, alike[0].agent, alike[0].demos, ", ".join(run.task for run in alike)]
        for pattern, alike in patterns.items()
    ]
    agents = list(dict.fromkeys(run.agent for run in runs))
    of = {agent: [run for run in runs if run.agent == agent] for agent in agents}
    keys = dict.fromkeys(key for run in runs for key in run.flat)
    settings = [key for key in keys if key.startswith("agent.") or key in RUN]
    settings += [key for key in keys if key.startswith("env.") and varies(key, runs)]
    values = [[f"`{key.removeprefix('agent.')}`", *(said(key, of[agent]) for agent in agents)] for key in settings]
    return [
        f"## {family}\n",
        *table(["run", "encoder", "agent", "demonstrations", "tasks"], rows),
        "",
        *table(["setting", *agents], values),
        "",
    ]


def varies(key: str, runs: Sequence[Run]) -> bool:
    """Does it differ between runs of one task?"""
    return any(len({run.flat.get(key) for run in runs if run.task == task}) > 1 for task in {run.task for run in runs})


def said(key: str, runs: Sequence[Run]) -> str:
    """`200; 400: pen`: the most frequent value, and who has another."""
    values = {run: run.flat[key] for run in runs if key in run.flat}
    if not values:
        return ""
    usual = Counter(values.values()).most_common(1)[0][0]
    others: dict[str, list[Run]] = defaultdict(list)
    for run, value in values.items():
        if value != usual:
            others[value].append(run)
    return "; ".join([usual, *(f"{value}: {', '.join(called(some, runs))}" for value, some in others.items())])


def called(some: Sequence[Run], runs: Sequence[Run]) -> Iterable[str]:
    """Tasks of which these are all runs, and kinds of runs that are all among these; else the files' names."""
    names = {run.name for run in some}

    def whole(field: str, run: Run) -> bool:
        return {each.name for each in runs if getattr(each, field) == getattr(run, field)} <= names

    def name(run: Run) -> str:
        return run.task if whole("task", run) else f"`{run.pattern if whole('pattern', run) else run.name}`"

    return dict.fromkeys(name(run).replace("ablations/", "") for run in some)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """In Markdown."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def made() -> str:
    """The page, with stand-ins for what users have to make or get."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        stand_ins.put(Path(folder))
        return page()


if __name__ == "__main__":
    OUT.write_text(made(), encoding="utf-8")
    print(OUT)
