"""A sweep on disk: `runs/<its run id>/sweep.json`, its jobs' logs, and a lock.

Which run did which job is written in the runs themselves (`run.json`), so no crash can make the two disagree.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rrl.config.words import literal
from rrl.registry import UserError
from rrl.run import process
from rrl.store import results
from rrl.store.tracking import MLflowTracker
from rrl.sweeps.plan import Job

FILE = "sweep.json"


class SweepFolder:
    """An open sweep; holds its lock until the process ends."""

    def __init__(self, folder: Path, tracker: MLflowTracker) -> None:
        self.folder = folder
        self.tracker = tracker
        self._lock = (folder / "lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is working on the sweep {folder}; wait for it or stop it") from None
        self.facts: dict[str, Any] = json.loads((folder / FILE).read_text())

    @classmethod
    def open(cls, name: str, new: bool = False) -> SweepFolder:
        """The sweep of this name in `runs/`; if there is none, or `new`, a fresh one with its MLflow run."""
        process.make_root()
        with (results.ROOT / ".sweeps.lock").open("a") as one_at_a_time:
            fcntl.flock(one_at_a_time, fcntl.LOCK_EX)  # two first calls must not make two sweeps
            return cls._find(name, new)

    @classmethod
    def _find(cls, name: str, new: bool) -> SweepFolder:
        found = [
            (facts["started"], path.parent, facts)
            for path in results.ROOT.glob(f"*/{FILE}")
            if (facts := json.loads(path.read_text()))["name"] == name
        ]
        if found and not new:
            _, folder, facts = max(found, key=lambda each: each[0])
            return cls(folder, MLflowTracker.resume(facts["uri"], facts["run_id"]))
        tracker = MLflowTracker.start(name)
        tracker.tags({"kind": "sweep"})
        folder = results.ROOT / tracker.run_id
        folder.mkdir()
        facts = {"format": 1, "uri": tracker.uri, "run_id": tracker.run_id, "name": name}
        facts |= {
            "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "argv": sys.argv,
            "jobs": [],
        }
        _write(folder / FILE, facts)
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
        _write(self.folder / FILE, self.facts)

    def runs(self) -> dict[str, Path]:
        """Job fingerprint -> folder of its run, of the jobs that have begun."""
        folders = results.runs_of(self.run_id)
        return {json.loads((f / "run.json").read_text())["fingerprint"]: f for f in folders}

    def log(self, job: Job) -> Path:
        """Where a job's output goes."""
        return self.folder / "logs" / f"{job.name}.log"


def _write(path: Path, facts: dict[str, Any]) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("w") as file:
        file.write(json.dumps(facts, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
