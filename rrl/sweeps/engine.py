"""Runs the jobs of a sweep: starts, watches and settles them, and goes on with what an earlier call began."""

from __future__ import annotations

import signal
import time
import warnings
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rrl.config import ginfile
from rrl.machine.signals import ENDING, Stopped, Stopping
from rrl.registry import UserError
from rrl.store import results
from rrl.store.tracking import MLflowTracker, Row
from rrl.sweeps.backends import Backend, Handle, stop_all
from rrl.sweeps.child import Task
from rrl.sweeps.jobs import Entry, Job
from rrl.sweeps.search import OptunaSearch
from rrl.sweeps.state import SweepFolder
from rrl.sweeps.table import Table

TICK = 0.2  # seconds between looks at the processes
SUMMARISED = ("best", "last5", "auc")
"""Of the training curve of the score: a sweep's own row in MLflow shows its best run's, and the final score."""


class Engine:
    """One call of a sweep."""

    def __init__(
        self,
        sweep: SweepFolder,
        jobs: Sequence[Job],
        backend: Backend,
        table: Table,
        budget: float | None = None,
        search: OptunaSearch | None = None,
    ) -> None:
        self.sweep, self.backend, self.table, self.budget, self.search = sweep, backend, table, budget, search
        self.entries: dict[str, Entry] = {}
        self._waiting: deque[Entry] = deque()
        self._running: list[tuple[Entry, Handle]] = []
        self._begun = sweep.runs()  # by earlier calls
        self._elsewhere = MLflowTracker.finished_jobs(sweep.tracker.uri, sweep.run_id)
        self._add(jobs)

    def run(self) -> int:
        """Work until every job has ended; the exit code: 1 if any failed, 129, 130 or 143 after a signal."""
        code = 1
        with Stopping() as stopping:
            try:
                try:
                    stopping.listen()
                    self._close_killed()
                    with self.table:
                        self._loop()
                    failed = [entry for entry in self.entries.values() if entry.state == "failed"]
                    code = 1 if failed else 0
                finally:
                    stopping.hold()
            except Stopped as cause:
                stopping.hold()
                code = cause.code
            finally:  # whatever comes now, there must be no orphan
                self._stop()
                self.backend.close()
                self._close_killed()
                self._summarise("FINISHED" if code == 0 else "FAILED" if code == 1 else "KILLED")
        return code

    def _add(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            folder = self._begun.get(job.fingerprint)
            entry = Entry(job, folder=folder)
            self.entries[job.fingerprint] = entry
            here = folder is not None and results.read_status(folder) == ("finished", "")
            if here or (folder is None and job.fingerprint in self._elsewhere):
                entry.state = "finished"
            else:
                self._waiting.append(entry)

    def _loop(self) -> None:
        while True:
            for entry, handle in list(self._running):
                code = handle.poll()
                if code is not None:
                    self._running.remove((entry, handle))
                    self._settle(entry, code)
            if self.search is not None:
                ended = {f: e.state for f, e in self.entries.items() if e.state not in ("waiting", "running")}
                room = self.backend.jobs - len(self._running) - len(self._waiting)
                self._add(self.search.more(ended, room))  # type: ignore[arg-type]
            while self._waiting and len(self._running) < self.backend.jobs:
                self._start(self._waiting.popleft())
            if not self._running and not self._waiting and (self.search is None or self.search.done):
                return
            self._look()
            self.table.show(list(self.entries.values()))
            time.sleep(TICK)

    def _start(self, entry: Entry) -> None:
        job, cores = entry.job, self.backend.cores_each
        # What a run would choose for the whole machine is chosen for its share of it. On a single core one
        # process does it all: a worker beside it would only take turns with it.
        chosen: dict[str, Any] = {}
        if job.config.threads is None:
            chosen["threads"] = cores
        if job.config.workers is None:
            chosen["workers"] = cores if cores > 1 else 0
        jobs = self.sweep.folder / "jobs"
        config = job.config.model_copy(update=chosen)
        task = Task(
            sweep=self.sweep.run_id,
            uri=self.sweep.tracker.uri,
            job=job.name,
            fingerprint=job.fingerprint,
            config=ginfile.dumps(config, jobs, results.project(self.sweep.folder)),
            file=str(jobs / f"{job.name}.gin"),
            run=str(entry.folder) if entry.folder else None,
            budget=self.budget,
            cores=(),
        )
        log = self.sweep.log(job)
        log.parent.mkdir(exist_ok=True)
        entry.state, entry.began = "running", time.monotonic()
        entry.log_from = log.stat().st_size if log.exists() else 0
        self._running.append((entry, self.backend.start(task, log)))
        self.table.line(f"{'resumed' if entry.folder else 'started'}: {job.name}")

    def _settle(self, entry: Entry, code: int) -> None:
        entry.folder = entry.folder or self.sweep.runs().get(entry.job.fingerprint)
        entry.seconds = time.monotonic() - entry.began
        if entry.folder is not None:
            entry.state, entry.reason = results.read_status(entry.folder)
        elif code == 0:  # on a machine that shares no files with this one: MLflow knows
            done = MLflowTracker.finished_jobs(self.sweep.tracker.uri, self.sweep.run_id)
            entry.state = "finished" if entry.job.fingerprint in done else "stopped"
        if code < 0:
            entry.state, entry.reason = "failed", f"killed by {signal.Signals(-code).name}"
            self._close_killed()
        elif code != 0 and not (entry.state == "stopped" and code - 128 in ENDING):
            known = entry.reason if entry.state == "failed" and code == 1 else ""
            entry.reason = known or _last_words(self.sweep.log(entry.job), entry.log_from)
            entry.state = "failed"
        self.table.line(f"{entry.state}: {entry.job.name}" + (f" ({entry.reason})" if entry.reason else ""))

    def tell_failures(self) -> None:
        """Print the runs that failed: each reason once, with the runs that share it and their logs."""
        failed: dict[str, list[Job]] = {}
        for entry in self.entries.values():
            if entry.state == "failed":
                failed.setdefault(entry.reason, []).append(entry.job)
        for reason, jobs in failed.items():
            logs = "".join(f"\n  log: {self.sweep.log(job)}" for job in jobs)
            self.table.line(f"FAILED {', '.join(job.name for job in jobs)}: {reason}{logs}")

    def _look(self) -> None:
        """Find the folders of the runs that have begun."""
        new = [entry for entry, _ in self._running if entry.folder is None]
        folders = self.sweep.runs() if new else {}
        for entry in new:
            entry.folder = folders.get(entry.job.fingerprint)

    def _stop(self) -> None:
        if self._running:
            self.table.line(f"stopping {len(self._running)} runs")
            stop_all([handle for _, handle in self._running])
            for entry, _ in self._running:
                finished = entry.folder and results.read_status(entry.folder)[0] == "finished"
                entry.state = "finished" if finished else "stopped"

    def _close_killed(self) -> None:
        alive = [e.folder.name for e in self.entries.values() if e.folder is not None and results.busy(e.folder)]
        MLflowTracker.close_killed(self.sweep.tracker.uri, self.sweep.run_id, [*alive, self.sweep.run_id])

    def _summarise(self, status: str) -> None:
        """The parent's row in MLflow: how many runs ended how, and the best of them."""
        states = [entry.state for entry in self.entries.values()]
        metrics = {f"runs/{state}": float(states.count(state)) for state in ("finished", "stopped", "failed")}
        for entry in self.entries.values():
            if entry.folder is None:
                continue
            try:
                result = results.read(entry.folder)
            except UserError as error:
                warnings.warn(str(error), stacklevel=1)
                continue
            score = result.score
            for name in (*(score.metric("summary", kind) for kind in SUMMARISED), score.metric("final")):
                value = result.last(name)
                if value is not None:
                    metrics[name] = max(metrics.get(name, value), value)
        self.sweep.tracker.metrics([Row(0, int(time.time() * 1000), metrics)])
        self.sweep.tracker.artifact(self.sweep.folder / "sweep.json")
        self.sweep.tracker.end(status)


def _last_words(log: Path, start: int) -> str:
    """Why a process says that it ended: its last error line, or else its last line, from byte `start` on."""
    try:
        text = log.read_bytes()[start:].decode(errors="replace")
    except OSError:
        text = ""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["it left no output"]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines)[-1].removeprefix("error: ")[:500]
