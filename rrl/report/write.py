"""`rrl report`: reads runs, draws figures, and writes the page with its files, or the figures alone."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rrl.machine.paths import unusable, writable
from rrl.registry import UserError
from rrl.report import csv_files, figures, numbers, page, tables
from rrl.report.figures import DRAWN_BY, Drawn, Make, Published
from rrl.report.groups import Report, collect
from rrl.report.numbers import Axis
from rrl.store import files as store_files
from rrl.store import results

GENERATOR = '<meta name="generator" content="rrl report">'


def write(
    names: list[str],
    out: Path,
    say: Callable[[str], None],
    *,
    published: Sequence[Published] = (),
    verdict: str | None = None,
    root: Path | None = None,
) -> None:
    """Write the report on these runs and sweeps (none: all runs below `root`, by default `runs/`) to `out`,
    and figures and numbers to the folder `<out's name>_files` beside it.

    `published` curves are drawn beside ours, `verdict` stands in a box on top. `say` takes lines for people.
    UserError if a name means no run, there are none, or `out` exists and is no report.
    """
    check(out)
    report = read(names, root)
    files = out.with_name(f"{out.stem}_files")
    if files.exists() and not out.exists():
        raise UserError(f"{files} is there already, but not the report that it would belong to; remove it")
    looks = figures.looks(report)
    drawn = draw(report, looks, published)
    title = "rrl report: " + ", ".join(report.tasks)
    text = page.render(
        report,
        drawn,
        looks,
        title=title,
        files=files.name,
        published=list(dict.fromkeys(p.label for p in published if any(map(p.beside, report.groups)))),
        verdict=verdict,
    )
    fresh = not files.exists()
    try:
        files.mkdir(parents=True, exist_ok=True)
        for figure in (figure for section in drawn.values() for figure in section):
            for ending, data in figure.files.items():
                with store_files.writing(files / f"{figure.name}.{ending}") as file:
                    file.write(data)
        csv_files.write_all(report, files)
        store_files.write_text(out, text)
    except BaseException as error:
        if fresh:  # else it would stand in the next try's way
            shutil.rmtree(files, ignore_errors=True)
        if isinstance(error, OSError):
            raise UserError(f"the report can't be written: {error}; choose another place with --out") from error
        raise
    say(f"{len(report.runs)} runs in {len(report.groups)} groups: {out} ({out.stat().st_size / 1e6:.1f} MB)")
    say(f"figures and numbers: {files}")


def write_figures(
    names: list[str],
    folder: Path,
    say: Callable[[str], None],
    *,
    x: Axis = "steps",
    published: Sequence[Published] = (),
    root: Path | None = None,
) -> None:
    """Write the report's figures alone into `folder`, each as PNG, SVG and PDF; `x`: what curves are drawn over.

    UserError if a name means no run, there are none, nothing is measured, or a file is there that `rrl report` did not
    draw: then nothing is written.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is no folder, and figures go into one; name another, or remove it first")
    writable(folder)
    report = read(names, root)
    drawn = draw(report, figures.looks(report), published, x)
    made = {
        folder / f"{figure.name}.{ending}": data
        for section in drawn.values()
        for figure in section
        for ending, data in figure.files.items()
    }
    if not made:
        raise UserError("these runs have measured nothing yet: there is nothing to draw")
    replaced = {path for path in made if os.path.lexists(path)}
    for path in sorted(replaced):
        if unusable(path) or DRAWN_BY.encode() not in path.read_bytes():
            raise UserError(f"{path} exists and is no figure of rrl's; choose another folder or remove it first")
    if x == "hours":
        _tell_clocks(report, published, say)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, data in made.items():
            with store_files.writing(path) as file:
                file.write(data)
    except OSError as error:
        raise UserError(f"the figures can't be written: {error}; choose another folder with --out") from error
    for path in made:
        say(f"{path} (replaced)" if path in replaced else f"{path}")


def _tell_clocks(report: Report, published: Sequence[Published], say: Callable[[str], None]) -> None:
    """What hides behind hours."""
    silent = [run.run_id[: results.ID] for run in report.runs if run.rows and run.clock is None]
    if silent:
        say(f"not drawn over hours, as their version of rrl did not time updates: {', '.join(silent)}")
    devices = sorted({numbers.device(run) for group in report.groups for run in group.measured})
    if len(devices) > 1:
        say(f"hours of different devices are no comparison of methods: {'; '.join(devices)}")
    if published:
        say("published curves are not drawn over hours, which nobody published")


def read(names: list[str], root: Path | None = None) -> Report:
    """The runs of these names (none: all), in groups. UserError if there are none."""
    runs = results.find(names, root)
    if not runs:
        folder = (root or results.ROOT).resolve()
        raise UserError(f"there are no runs in {folder}: {results.WHERE}")
    return collect(runs)


def check(out: Path) -> None:
    """UserError if `out` is a folder, or a file that `rrl report` did not write, or can't be written."""
    if out.is_dir():
        raise UserError(f"{out} is a folder; name a file, such as {out / 'report.html'}")
    writable(out.parent)
    if not out.exists():
        return
    if unusable(out) or GENERATOR not in out.read_text(encoding="utf-8", errors="replace")[:4000]:
        raise UserError(f"{out} exists and is no report of rrl's; choose another name or remove it first")


def draw(
    report: Report, looks: tables.Looks, published: Sequence[Published], x: Axis = "steps"
) -> dict[str, list[Drawn]]:
    """The page's figures by section: `train`, `eval`, `aggregate`, `compute`; and `tasks`, panels of all tasks, for
    which a page has no room."""
    sections: dict[str, list[Drawn]] = {"train": [], "eval": [], "tasks": [], "aggregate": [], "compute": []}

    def add(section: str, make: Make, name: str, title: str) -> None:
        drawn = figures.draw(make, name, title)
        if drawn is not None:
            sections[section].append(drawn)

    over, ending = ("hours", "-hours") if x == "hours" else ("environment steps", "-log" if x == "log-steps" else "")
    words = {"train": "training {}, sampled action", "eval": "evaluation {}, mean action"}
    for space in numbers.SPACES:
        for task, groups in report.tasks.items():
            name = f"curves-{space}-{re.sub(r'[^A-Za-z0-9_-]', '_', task)}{ending}"
            title = f"{task}: {words[space].format(groups[0].score.name)} over {over}"
            add(space, partial(figures.curves, groups, space, published, looks, x=x), name, title)
        title = f"All tasks: {words[space].format('score')} over {over}"
        make = partial(figures.grid, report.tasks, space, published, looks, x=x)
        add("tasks", make, f"tasks-{space}{ending}", title)
    aggregates, _, step = numbers.aggregates(report)
    make = partial(figures.aggregate, aggregates, looks, step)
    add("aggregate", make, "aggregate", "Interquartile mean of success")
    computes = [numbers.compute(group) for group in report.groups]
    add("compute", partial(figures.times, computes, report), "compute", "Seconds per update by part")
    return sections
