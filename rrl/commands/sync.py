"""`rrl sync`: what an MLflow store lacks of runs, from their folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rrl.registry import UserError
from rrl.store import files, results
from rrl.store.recorded import ending, opened, shown
from rrl.store.tracking import store


def sync(names: Sequence[str], to: str | None, say: Callable[[str], None]) -> None:
    """Tell a store all of these runs, of all in `runs/` if none is named: settings, facts, metrics, files. What it has
    already stays as it is. `to`: the address of another store than the one that each began with."""
    folders = results.folders(names)
    if not folders:
        raise UserError(f"there are no runs in {results.ROOT.absolute()}. {results.WHERE}")
    for folder in folders:
        if results.busy(folder):
            say(f"{folder.name[: results.ID]}: is running, and tells MLflow itself")
        else:
            say(f"{folder.name[: results.ID]}: {_synced(folder, store(to) if to else None, say)}")


def _synced(folder: Path, to: str | None, say: Callable[[str], None]) -> str:
    """Tell a store one run; returns in words what it was told."""
    run = results.read(folder)
    tracker, made = opened(folder, say, to, running=False)
    tracker.params(run.params)
    tracker.tags(files.read_json(folder / results.TAGS))
    tracker.metrics(run.rows)
    told = [*shown(folder)]
    for path, inside in told:
        tracker.artifact(path, inside)
    status, tags = ending(run)
    tracker.tags(tags)
    tracker.end(status)
    where = f"{'a new run' if made else 'run'} {tracker.run_id[: results.ID]} in {tracker.uri}"
    return f"{len(run.rows)} rows of metrics, {len(told)} files, {run.status}: {where}"
