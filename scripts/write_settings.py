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
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import stand_ins

from rrl.config import ginfile
from rrl.encoders import FixedEncoder
from rrl.encoders.task import TaskEncoder
from rrl.registry import build

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "settings.md"
RUN = ("num_envs", "iterations", "eval_every", "demos.episodes")
"""Settings beside the agent's own, and those of the environment in which runs of a task differ."""
PAPER = ("adroit_", "ablations/", "mjrl_", "dmc_")
"""How files of the paper's runs begin."""
LAID_OVER = {"method/ferm_imitation": "adroit_*_ferm"}
"""Parts of our own that are laid over runs, and over which."""
HEAD = """# What the shipped runs set

The paper's table 7.2, made from the gin files by `python scripts/write_settings.py`: for each family of environments
first the runs (TASK stands for the task's name), then the settings of their agents, and those of the environment in
which runs of a task differ, then the settings of their encoders. `a; b: FILE` is a, but b in that file, or in all files
of that task; None of `demos.episodes` is all; `picture` is what is drawn, in pixels (224 of 256: the centre). `rrl
check FILE` prints all that a run uses, `rrl describe NAME` what a setting of an agent or an encoder means.

The agent "FERM, `method/ferm_imitation`" is not the paper's: our settings, laid over its FERM (`rrl run FILE PART`).
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


def read(name: str, part: str = "") -> Run:
    """The run of a shipped file, or of a part laid over it. (A network's label tells its weights: none of these is
    untrained.)"""
    config: Any = ginfile.load([name, part] if part else name)
    flat = {"encoder.picture": picture(config.encoder)} | ginfile.flatten(config, Path(), silent=True)
    task = build(config.env).name.partition("_")[2]
    encoder = config.encoder.label().partition(" (")[0]
    demos = (
        "-" if config.demos is None else flat["demos.name"] if flat.get("demos.name", "None") != "None" else "shipped"
    )
    agent = flat["agent"] + (f", `{part}`" if part else "")
    return Run(f"{name} {part}".strip(), flat["env"], task, encoder, agent, demos, flat)


def picture(encoder: Any) -> str:
    """What it asks environments to draw; of one whose file decides, nothing that stand-ins could tell."""
    if isinstance(encoder, (FixedEncoder.Config, TaskEncoder.Config)):
        return "as in its file"
    if (asked := encoder.frames()) is None:
        return "-"
    return str(asked.size) + (f" of {asked.crop_from}" if asked.crop_from != asked.size else "")


def page() -> str:
    """The whole file. Reads files that the working folder must have: see `stand_ins`."""
    names = [name for name in ginfile.shipped() if name.startswith(PAPER)]
    families: dict[str, list[Run]] = defaultdict(list)
    laid_over = [read(name, part) for part, over in LAID_OVER.items() for name in names if fnmatch(name, over)]
    for run in (*map(read, names), *laid_over):
        families[run.family].append(run)
    return "\n".join([HEAD, *(text for family, runs in families.items() for text in section(family, runs))])


def section(family: str, runs: Sequence[Run]) -> list[str]:
    """Lines about the environments of one class."""
    patterns = by("pattern", runs)
    rows = [
        [f"`{pattern}`", alike[0].encoder, alike[0].agent, alike[0].demos, ", ".join(run.task for run in alike)]
        for pattern, alike in patterns.items()
    ]
    keys = dict.fromkeys(key for run in runs for key in run.flat)
    settings = [key for key in keys if key.startswith("agent.") or key in RUN]
    settings += [key for key in keys if key.startswith("env.") and varies(key, runs)]
    return [
        f"## {family}\n",
        *table(["run", "encoder", "agent", "demonstrations", "tasks"], rows),
        "",
        *values("agent", settings, runs),
        "",
        *values("encoder", [key for key in keys if key.startswith("encoder.")], runs),
        "",
    ]


def by(field: str, runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs that have this field of `Run` in common."""
    found: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        found[getattr(run, field)].append(run)
    return found


def values(field: str, settings: Iterable[str], runs: Sequence[Run]) -> list[str]:
    """A table of settings, with a column for each agent, or encoder."""
    columns = by(field, runs)
    rows = [[f"`{key.removeprefix(f'{field}.')}`", *(said(key, of) for of in columns.values())] for key in settings]
    return table(["setting", *columns], rows)


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
