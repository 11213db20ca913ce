"""`rrl report`: reads runs, draws figures, and writes the page with its files."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from rrl.machine.paths import unusable, writable
from rrl.registry import UserError
from rrl.report import csv_files, figures, numbers, page, tables
from rrl.report.figures import Drawn, Published
from rrl.report.groups import Report, collect
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
    runs = results.find(names, root)
    if not runs:
        folder = (root or results.ROOT).resolve()
        raise UserError(f"there are no runs in {folder}; `rrl run quickstart` makes one in minutes")
    files = out.with_name(f"{out.stem}_files")
    if files.exists() and not out.exists():
        raise UserError(f"{files} is there already, but not the report that it would belong to; remove it")
    report = collect(runs)
    looks = figures.looks(report)
    drawn = draw(report, looks, published)
    title = "rrl report: " + ", ".join(report.tasks)
    text = page.render(
        report,
        drawn,
        looks,
        title=title,
        files=files.name,
        published=[p.label for p in published if p.task in report.tasks],
        verdict=verdict,
    )
    fresh = not files.exists()
    try:
        files.mkdir(parents=True, exist_ok=True)
        for figure in (figure for section in drawn.values() for figure in section):
            with store_files.writing(files / f"{figure.name}.png") as file:
                file.write(figure.png)
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


def check(out: Path) -> None:
    """UserError if `out` is a folder, or a file that `rrl report` did not write, or can't be written."""
    if out.is_dir():
        raise UserError(f"{out} is a folder; name a file, such as {out / 'report.html'}")
    writable(out.parent)
    if not out.exists():
        return
    if unusable(out) or GENERATOR not in out.read_text(encoding="utf-8", errors="replace")[:4000]:
        raise UserError(f"{out} exists and is no report of rrl's; choose another name or remove it first")


def draw(report: Report, looks: tables.Looks, published: Sequence[Published]) -> dict[str, list[Drawn]]:
    """The page's figures by section: `train`, `eval`, `aggregate`, `compute`."""
    drawn: dict[str, list[Drawn]] = {"train": [], "eval": [], "aggregate": [], "compute": []}
    words = {"train": "training {}, sampled action", "eval": "evaluation {}, mean action"}
    for space in numbers.SPACES:
        for task, groups in report.tasks.items():
            figure = figures.curves(groups, space, published, looks)
            if figure is not None:
                name = f"curves-{space}-{re.sub(r'[^A-Za-z0-9_-]', '_', task)}"
                title = f"{task}: {words[space].format(groups[0].score.name)} over environment steps"
                drawn[space].append(figures.draw(figure, name, title))
    aggregates, _, step = numbers.aggregates(report)
    figure = figures.aggregate(aggregates, looks, step)
    if figure is not None:
        drawn["aggregate"].append(figures.draw(figure, "aggregate", "Interquartile mean of success"))
    figure = figures.times([numbers.compute(group) for group in report.groups], report)
    if figure is not None:
        drawn["compute"].append(figures.draw(figure, "compute", "Seconds per update by part"))
    return drawn
