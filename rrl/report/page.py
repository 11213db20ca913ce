"""The page itself: everything that it says, put into its template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from rrl.report import notices, numbers, score_tables, scores, tables, videos
from rrl.report.figures import Drawn, Look, short
from rrl.report.groups import Report
from rrl.report.numbers import CURVES, ENOUGH, EVAL, TRAIN, curve

REASON = 400  # characters of a failure's reason
METRICS = {
    TRAIN: "success of training episodes (sampled action)",
    EVAL: "success of evaluation episodes (mean action)",
    "train/return": "return of training episodes (sampled action)",
    "eval/return": "return of evaluation episodes (mean action)",
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
    found, metric, step = numbers.aggregates(report)
    counted, scored = report.counted, report.scored
    context = _head(report, title) | {
        "figures": {name: [{"svg": Markup(d.svg), "name": d.name} for d in ds] for name, ds in drawn.items()},
        "files": files,
        "verdict": verdict,
        "notices": notices.notices(report),
        "unfinished": [
            {"u": u, "why": u.why if len(u.why) <= REASON else u.why[:REASON] + " ..."}
            for u in notices.unfinished(report)
        ],
        "legend": [(groups[0].method, looks[key]) for key, groups in report.methods.items()],
        "published": published,
        "bands": _bands(report),
        "aggregate": tables.aggregate(found, step, len(counted.tasks), looks),
        "step": short(step) if step else "",
        "metric": METRICS[metric],
        "cautions": _cautions(counted, found),
        "thresholds": tables.thresholds(report, looks),
        "final": tables.final([numbers.final(group) for group in counted.groups], looks),
        "counted": list(counted.tasks),
        "scored": list(scored.tasks),
        "table1": score_tables.table1(scored) if scored.groups else None,
        "recalled": scores.published() if scored.groups else None,
        "ended": score_tables.ended([scores.ended(group) for group in scored.groups], looks),
        "pairs": [_pairs(task, groups, looks) for task, groups in report.tasks.items() if len(groups) > 1],
        "many": numbers.MANY,
        "compute": tables.compute([numbers.compute(g) for g in report.groups], report, looks),
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
    every = [c for g in report.groups for m in CURVES[report.kinds[g.task]] if (c := curve(g, m))]
    return list(dict.fromkeys(c.band for c in every if c.band))


def _cautions(report: Report, found: Sequence[numbers.Aggregate]) -> list[str]:
    lines = []
    if len(report.tasks) == 1:
        lines.append("There is one task: this is about its seeds only, not about tasks in general.")
    if any(len(group.measured) < ENOUGH for group in report.groups):
        lines.append(f"Some groups have fewer than {ENOUGH} seeds: their intervals are not meaningful.")
    if any(0 < a.scores < 4 for a in found):
        lines.append("With fewer than four values nothing is trimmed: the IQM is the mean.")
    return lines


def _pairs(task: str, groups: Sequence[Any], looks: tables.Looks) -> dict[str, Any]:
    found, metric, step = numbers.pairs(groups)
    all_shown = len(found) == len(groups) * (len(groups) - 1) // 2
    return {
        "task": task,
        "table": tables.pairs(found, looks, "return" if "/return" in metric else "points"),
        "metric": METRICS[metric],
        "step": short(step),
        "all": all_shown,
    }
