"""A sweep on disk: `runs/<its run id>/sweep.json`, its jobs' logs, and a lock.

Which run did which job is written in the runs themselves (`run.json`), so no crash can make the two disagree.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydantic

from rrl.config.words import literal
from rrl.run import process
from rrl.store import files, results, schema
from rrl.store.tracking import MLflowTracker, store_of
from rrl.sweeps.jobs import Job

FILE = "sweep.json"


class _Job(pydantic.BaseModel):
    """What is asked of a job that a sweep has written down."""

    fingerprint: str


class _Facts(pydantic.BaseModel):
    """What is asked of a sweep's file; more stands there for people."""

    model_config = pydantic.ConfigDict(strict=True)

    name: str
    started: str
    uri: str
    run_id: str
    jobs: list[_Job]
    trials: list[dict[str, bool | int | float | str | None]] = []


class SweepFolder:
    """An open sweep; holds its lock until it is closed, at the latest when the process ends."""

    def __init__(self, folder: Path, tracker: MLflowTracker) -> None:
        self.folder = folder
        self.tracker = tracker
        self._lock = ExitStack()
        refusal = f"another process is working on the sweep {folder}; wait for it or stop it"
        self._lock.enter_context(files.locked(folder / "lock", seconds=0, refusal=refusal))
        facts = files.read_json(folder / FILE)
        schema.expect(_Facts, facts, folder / FILE, "sweep")
        self.facts: dict[str, Any] = facts

    def __enter__(self) -> SweepFolder:
        return self

    def __exit__(self, *_error: object) -> None:
        self._lock.close()

    @classmethod
    def open(cls, name: str, new: bool = False) -> SweepFolder:
        """The sweep of this name in `runs/`; if there is none, or `new`, a fresh one with its MLflow run."""
        process.make_root()
        with files.locked(results.ROOT / ".sweeps.lock"):  # two first calls must not make two sweeps
            return cls._find(name, new)

    @classmethod
    def _find(cls, name: str, new: bool) -> SweepFolder:
        if not new and (latest := _latest(name)):
            folder, facts = latest
            return cls(folder, MLflowTracker.resume(store_of(facts["uri"], results.project(folder)), facts["run_id"]))
        tracker = MLflowTracker.start(name)
        tracker.tags({"kind": "sweep"})
        folder = results.ROOT / tracker.run_id
        folder.mkdir()
        facts = {"format": 1, **tracker.place(results.project(folder)), "name": name}
        started = datetime.now(UTC).isoformat(timespec="milliseconds")
        files.write_json(folder / FILE, facts | {"started": started, "argv": sys.argv, "jobs": []})
        return cls(folder, tracker)

    @property
    def run_id(self) -> str:
        """The sweep's own run id, in MLflow the parent of its runs."""
        return str(self.facts["run_id"])

    def record(self, jobs: Sequence[Job], **facts: Any) -> None:
        """Write down jobs (those that are there already stay as they are) and other facts."""
        known = {job["fingerprint"] for job in self.facts["jobs"]}
        for job in jobs:
            if job.fingerprint not in known:
                point = {name: literal(value) for name, value in job.point.items()}
                entry = {"name": job.name, "source": job.source, "point": point}
                self.facts["jobs"].append(entry | {"fingerprint": job.fingerprint})
        self.facts |= facts
        files.write_json(self.folder / FILE, self.facts)

    def runs(self) -> dict[str, Path]:
        """Job fingerprint -> folder of its run, of the jobs that have begun."""
        folders = results.runs_of(self.run_id)
        return {str(results.facts_of(folder).get("fingerprint")): folder for folder in folders}

    def log(self, job: Job) -> Path:
        """Where a job's output goes."""
        return self.folder / "logs" / f"{job.name}.log"


def finished(name: str) -> set[str]:
    """Fingerprints of the jobs that are finished of the sweep that has this name; none where there is no such sweep."""
    if (latest := _latest(name)) is None:
        return set()
    done = [folder for folder in results.runs_of(latest[0].name) if results.read_status(folder) == ("finished", "")]
    return {str(files.read_json(folder / results.RUN).get("fingerprint")) for folder in done}


def _latest(name: str) -> tuple[Path, dict[str, Any]] | None:
    """(folder, facts) of the newest sweep of this name; None without one."""
    known = [(path.parent, facts) for path in results.ROOT.glob(f"*/{FILE}") if (facts := _facts(path))]
    sweeps = [(folder, facts) for folder, facts in known if facts["name"] == name]
    return max(sweeps, key=lambda sweep: sweep[1]["started"], default=None)


def _facts(path: Path) -> dict[str, Any] | None:
    """What a sweep's file says; None, with a warning, where it is damaged: other sweeps go on."""
    facts = files.read_json(path)
    if not schema.misfit(_Facts, facts):
        return facts
    warnings.warn(f"{path} is damaged, so this sweep is not known by its name; its runs stay as they are", stacklevel=5)
    return None
