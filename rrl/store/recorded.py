"""Where MLflow has a run: in the store that it began with, under its own id; elsewhere, or where that store has lost
it, under another one, which the folder's `tracking.json` tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from rrl.registry import UserError
from rrl.store import files
from rrl.store.results import BUDGET_OVER, RUN, Result, facts_of, project
from rrl.store.tracking import LostRun, MLflowTracker, kept, store_of

TRACKING = "tracking.json"
"""Ids of a run by the address of the store, as `run.json` tells addresses."""

JOB = ("sweep", "job", "fingerprint")
"""What `run.json` says of a sweep's run."""
SHOWN = (
    "config.gin",
    "learning_curve.png",
    "metrics.jsonl",
    "checkpoint.safetensors",
    "best_policy.safetensors",
    "policy.safetensors",
)
"""Files of a run's folder that MLflow gets, with those in `videos` and `pictures`."""


def shown(folder: Path) -> Iterator[tuple[Path, str]]:
    """The files that are there, and the folder of MLflow's that each goes to."""
    yield from ((folder / name, "") for name in SHOWN if (folder / name).is_file())
    for kind in ("videos", "pictures"):
        yield from ((path, kind) for path in sorted((folder / kind).glob("*")) if path.is_file())


def ending(run: Result) -> tuple[str, dict[str, str]]:
    """How a run ended, as MLflow has it: (status, tags). A budget ends it as planned."""
    if run.status == "failed":
        return "FAILED", {"failure": run.reason}
    if run.status == "finished":
        return "FINISHED", {"stopped_by": "nothing"}
    return ("FINISHED", {"stopped_by": "budget"}) if run.reason == BUDGET_OVER else ("KILLED", {})


def recorded(folder: Path, to: str | None = None) -> tuple[str, str]:
    """(address, id) of a run's record in the store that it began with, or in the one at the address `to`; the id is
    empty where there is none yet. UserError for a damaged folder, and for a stranger's choice of a store."""
    facts = facts_of(folder)
    try:
        own, run_id = str(facts["uri"]), str(facts["run_id"])
    except KeyError as error:
        raise UserError(f"{folder / RUN} is damaged: it lacks {error}") from error
    uri = to or store_of(own, project(folder))
    address = kept(uri, project(folder))
    known = files.read_json(folder / TRACKING).get(address)
    if known is None and address == kept(store_of(own, project(folder)), project(folder)):
        known = run_id
    return uri, str(known or "")


def opened(
    folder: Path, say: Callable[[str], None], to: str | None = None, *, running: bool = True
) -> tuple[MLflowTracker, bool]:
    """A run's record, and whether it had to be made: the store had none, or has lost it. `running`: the run goes on.
    UserError if the store can't be reached."""
    uri, run_id = recorded(folder, to)
    if run_id:
        try:
            return (MLflowTracker.resume if running else MLflowTracker.beside)(uri, run_id), False
        except LostRun:
            say(f"note: the MLflow store {uri} has lost this run: it is told all of it again")
    facts = facts_of(folder)
    job = {str(name): str(facts[name]) for name in JOB if name in facts}
    tracker = MLflowTracker.start(str(facts.get("name", folder.name)), job, uri)
    known = files.read_json(folder / TRACKING)
    files.write_json(folder / TRACKING, known | {kept(uri, project(folder)): tracker.run_id})
    return tracker, True
