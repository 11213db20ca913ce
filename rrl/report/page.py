"""The page itself: everything that it says, put into its template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from rrl.report import notices, numbers, table1, tables, videos
from rrl.report.figures import Drawn, Look
from rrl.report.groups import Group, Report
from rrl.report.numbers import ENOUGH, SPACES, curve, short
from rrl.score import Score, Space

REASON = 400  # characters of a failure's reason
EPISODES: dict[Space, str] = {
    "train": "training episodes (sampled action)",
    "eval": "evaluation episodes (mean action)",
}


def swatch(look: Look | None) -> Markup:
    """A short line as the method has it in the figures."""
    if look is None:
        return Markup("")
    dash = "" if look.dash == "-" else f'stroke-dasharray="{" ".join(str(1.6 * d) for d in look.dash[1])}"'
    return Markup(
        '<svg class="swatch" viewBox="0 0 28 8" aria-hidden="true"><line x1="0" y1="4" x2="28" y2="4" '
        f'stroke="{look.colour}" stroke-width="3" {dash}/></svg>'
    )


def render(
    report: Report,
    drawn: Mapping[str, Sequence[Drawn]],
    looks: tables.Looks,
    *,
    title: str,
    files: str,
    published: Sequence[str] = (),
    verdict: str | None = None,
) -> str:
    """The page as HTML; `drawn` holds the figures by section, `files` is the folder beside the page."""
    aggregates, space, step = numbers.aggregates(report)
    counted, numeric = report.judged(counted=True), report.judged(counted=False)
    context = _head(report, title) | {
        "figures": {name: [{"svg": Markup(d.inline), "name": d.name} for d in ds] for name, ds in drawn.items()},
        "files": files,
        "verdict": verdict,
        "notices": notices.notices(report),
        "unfinished": notices.unfinished(report),
        "reason": lambda why: why if len(why) <= REASON else why[:REASON] + " ...",
        "legend": [(groups[0].method, looks[key]) for key, groups in report.methods.items()],
        "published": published,
        "bands": _bands(report),
        "aggregate": tables.aggregate(aggregates, step, len(counted.tasks), looks),
        "step": short(step) if step else "",
        "metric": f"success of {EPISODES[space]}",
        "cautions": _cautions(counted, aggregates),
        "rules": list(dict.fromkeys((run.score.name, run.flags[1:]) for run in report.runs)),
        "thresholds": tables.thresholds(report, looks),
        "counted": list(counted.tasks),
        "numeric": list(numeric.tasks),
        "table1": table1.table1(numeric) if numeric.groups else None,
        "recalled": table1.published(),
        "finals": [tables.final([numbers.final(g) for g in part.groups], looks) for part in (numeric, counted)],
        "pairs": [_pairs(task, groups, looks) for task, groups in report.tasks.items() if len(groups) > 1],
        "many": numbers.MANY,
        "compute": tables.compute([numbers.compute(g) for g in report.groups], report, looks),
        "costs": tables.costs([cost for g in report.groups if (cost := numbers.cost(g))], report, looks),
        "films": videos.films(report),
        "listed": videos.listed,
        "differences": tables.differences(report),
        "same": tables.same(report),
        "enough": ENOUGH,
        "swatch": swatch,
    }
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("template.html").render(context)


def _head(report: Report, title: str) -> dict[str, Any]:
    states = [run.status for run in report.runs]
    return {
        "title": title,
        "now": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": version("rrl"),
        "commits": list(dict.fromkeys(notices.commit(run) for run in report.runs if run.tags)),
        "runs": len(report.runs),
        "groups": len(report.groups),
        "tasks": list(report.tasks),
        "states": [(s, states.count(s)) for s in ("finished", "running", "stopped", "failed") if s in states],
        "started": sorted(run.started for run in report.runs)[0][:10],
    }


def _bands(report: Report) -> list[str]:
    """What the bands of the curves are, such as `lowest to highest seed`."""
    lines = [line for group in report.groups for space in SPACES if (line := curve(group, space))]
    return list(dict.fromkeys(line.band for line in lines if line.band))


def _cautions(report: Report, aggregates: Sequence[numbers.Aggregate]) -> list[str]:
    lines = []
    if len(report.tasks) == 1:
        lines.append("There is one task: this is about its seeds only, not about tasks in general.")
    if any(len(group.measured) < ENOUGH for group in report.groups):
        lines.append(f"Some groups have fewer than {ENOUGH} seeds: their intervals are not meaningful.")
    if any(0 < a.scores < 4 for a in aggregates):
        lines.append("With fewer than four values nothing is trimmed: the IQM is the mean.")
    return lines


def _pairs(task: str, groups: Sequence[Group], looks: tables.Looks) -> dict[str, Any]:
    pairs, space, step = numbers.pairs(groups)
    score: Score = groups[0].score
    return {
        "task": task,
        "table": tables.pairs(pairs, looks, score),
        "metric": f"{score.name} of {EPISODES[space]}",
        "step": short(step),
        "all": len(pairs) == len(groups) * (len(groups) - 1) // 2,
    }
