"""`rrl runs`: the runs of this folder, a line each."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rrl.machine.console import wrapped
from rrl.registry import UserError
from rrl.report.groups import collect, seed_of
from rrl.report.numbers import SOURCES, finite, scores, short
from rrl.store import files, results
from rrl.store.results import CONFIG, ID, LOCK, PRETRAINING, PROBE, RUN, SWEEP, WHERE, Result, Status

Record = dict[str, Any]
DAMAGED = "damaged"
STATES = (*get_args(Status), DAMAGED)
COLOURS = {"finished": "green", "failed": "red", "running": "cyan", "stopped": "yellow", DAMAGED: "red"}
COLUMNS = ("id", "name", "task", "method", "status", "steps", "score", "95 %", "of", "started")
LEFT_OUT = ("of", "95 %", "started", "method", "task", "steps")
"""Columns that a narrow terminal goes without, in this order."""
SHORTENED = {"name": 16, "method": 14}
"""Columns that may be cut to so many characters."""


def show(
    names: Sequence[str],
    say: Callable[[str], None],
    *,
    task: str | None = None,
    method: str | None = None,
    status: str | None = None,
    name: str | None = None,
    limit: int | None = None,
    as_json: bool = False,
    root: Path | None = None,
    console: Console | None = None,
) -> None:
    """List runs, newest first: a table on a terminal, lines with tabs elsewhere (`say` takes them).

    `names` are runs and sweeps, none: all. `task`, `method` and `name` are parts of what they look for.
    """
    if status not in (None, *STATES):
        raise UserError(f"--status {status}: it is one of {', '.join(STATES)}")
    everything = records(names, root)
    wanted = {"task": task, "method": method, "name": name}
    found = [r for r in everything if status in (None, r["status"]) and _fits(r, wanted)][:limit]
    if as_json:
        say(json.dumps(found, indent=2, allow_nan=False))
        return
    console = console or Console(file=sys.stdout, highlight=False)
    if not found:
        say(_none(everything, (root or results.ROOT).resolve()))
    elif console.file.isatty():
        console.print(_table(found, console.width))
        for r in found:
            if r["status"] == DAMAGED:
                say(wrapped(f"{r['id'][:ID]} is damaged: {r['reason']}", console.width))
    else:
        say("\t".join([*COLUMNS, "reason"]))
        for r in found:
            texts = {**_texts(r, datetime.now(UTC)), "id": r["id"], "reason": r["reason"]}
            say("\t".join(" ".join(texts[column].split()) for column in (*COLUMNS, "reason")))


def records(names: Sequence[str], root: Path | None = None) -> list[Record]:
    """What `--json` shows of each run, newest first: always the same keys, null where a number isn't known."""
    folders = results.folders(names, root)
    if not names:
        folders += _nameless(root or results.ROOT)
    return sorted(map(_record, folders), key=lambda r: (r["started"], r["name"]), reverse=True)


def _nameless(root: Path) -> Iterable[Path]:
    """Folders of runs that ended, or were damaged, before or after their `run.json` said who they are."""
    began = {path.parent for name in (CONFIG, LOCK) for path in root.glob(f"*/{name}")}
    return [
        folder for folder in began if not any((folder / file).exists() for file in (RUN, SWEEP, PRETRAINING, PROBE))
    ]


def _record(folder: Path) -> Record:
    try:
        return _of(results.read(folder))
    except UserError as error:
        changed = datetime.fromtimestamp(folder.stat().st_mtime, UTC).isoformat(timespec="seconds")
        told = files.read_json(folder / RUN)
        known = {"name": str(told.get("name", "")), "started": str(told.get("started", changed))}
        state = {"status": "running"} if results.busy(folder) else {"status": DAMAGED, "reason": str(error)}
        return {**_EMPTY, "id": folder.name, "folder": str(folder), **known, **state}


_EMPTY: Record = {
    **dict.fromkeys(("id", "name", "folder", "task", "encoder", "agent", "method", "status", "reason", "started"), ""),
    **dict.fromkeys(("seed", "updates", "iterations", "steps", "seconds", "score", "best", "last5", "sweep", "job")),
}


def _of(run: Result) -> Record:
    (group,) = collect([run]).groups
    score = run.score
    end = scores(group, *(score.metric("final"), score.metric("eval"), score.metric("summary", "last5")))
    low, high = end.interval or (None, None)
    iterations = run.params.get("iterations", "")
    shown = {"name": score.name, "unit": score.unit.strip(), "value": finite(end.mean), "low": low, "high": high}
    shown |= {"episodes": end.episodes or None, "of": SOURCES.get(end.metric.partition("/")[0], "")}
    return {
        **_EMPTY,
        "id": run.run_id,
        "name": run.name,
        "folder": str(run.folder),
        "task": group.task,
        "encoder": group.encoder,
        "agent": group.agent,
        "method": group.method,
        "status": run.status,
        "reason": run.reason,
        "started": run.started,
        "seed": seed_of(run),
        "updates": int(run.last("iteration") or 0),
        "iterations": int(iterations) if iterations.isdecimal() else None,
        "steps": run.steps,
        "seconds": finite(run.seconds),
        "score": shown if shown["value"] is not None else None,
        "best": finite(run.last(score.metric("summary", "best"))),
        "last5": finite(run.last(score.metric("summary", "last5"))),
        "sweep": run.sweep,
        "job": run.job,
    }


def _fits(record: Record, wanted: Mapping[str, str | None]) -> bool:
    return all(part is None or part.lower() in record[key].lower() for key, part in wanted.items())


def _none(everything: Sequence[Record], root: Path) -> str:
    if not everything:
        return f"there are no runs in {root}: {WHERE}"
    held = {key: dict.fromkeys(r[key] for r in everything if r[key]) for key in ("task", "method", "status")}
    words = "; ".join(f"{key} {', '.join(list(values)[:8])}" for key, values in held.items() if values)
    return f"none of the {len(everything)} runs in {root} is like that; there are: {words}"


def _texts(record: Record, now: datetime) -> dict[str, str]:
    """The columns of a run."""
    score = record["score"]
    unit = f" {score['unit']}" if score and score["unit"] else ""
    return {
        **{name: record[name] for name in ("name", "task", "method", "status")},
        "id": record["id"][:ID],
        "steps": "" if record["steps"] is None else short(record["steps"]),
        "score": f"{score['value']:.1f}{unit}" if score else "",
        "95 %": f"{score['low']:.1f} to {score['high']:.1f}" if score and score["low"] is not None else "",
        "of": score["of"] if score else "",
        "started": _when(record["started"], now),
    }


def _when(started: str, now: datetime) -> str:
    """Such as `03-28 14:05`, or `2025-03-28` of another year, on this machine's clock."""
    try:
        at = datetime.fromisoformat(started).astimezone()
    except ValueError:
        return started
    return f"{at:%m-%d %H:%M}" if at.year == now.astimezone().year else f"{at:%Y-%m-%d}"


def _table(found: Sequence[Record], width: int) -> Table:
    """Columns that fit into the width, whole or shortened."""
    rows = [_texts(record, datetime.now(UTC)) for record in found]
    natural = {c: max(len(c), *(len(row[c]) for row in rows)) for c in COLUMNS if any(row[c] for row in rows)}

    def least() -> int:
        return sum(min(n, SHORTENED.get(c, n)) for c, n in natural.items()) + 2 * (len(natural) - 1)

    for column in LEFT_OUT:
        if least() > width:
            natural.pop(column, None)
    spare = max(width - least(), 0)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column, full in natural.items():
        kept = min(full, SHORTENED.get(column, full) + spare)
        spare -= max(kept - SHORTENED.get(column, full), 0)
        justify: Any = "right" if column in ("steps", "score", "95 %") else "left"
        table.add_column(column, justify=justify, no_wrap=True, overflow="ellipsis", width=kept)
    for row in rows:
        colour = COLOURS.get(row["status"], "default")
        table.add_row(*(f"[{colour}]{row[c]}[/]" if c == "status" else escape(row[c]) for c in natural))
    return table
