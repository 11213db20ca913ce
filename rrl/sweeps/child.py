"""One run of a sweep, in a process of its own, which gets a `Task` as JSON on its input.

It ends when the process that started it ends, however that ends.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

from rrl.machine.processes import die_with, python

PROGRAM = "from rrl.sweeps.child import main; sys.exit(main(sys.stdin.read()))"


@dataclass(frozen=True)
class Task:
    """What a child process needs to know."""

    sweep: str
    """Run id of the sweep."""
    uri: str
    """The MLflow store that holds it."""
    job: str
    fingerprint: str
    config: str
    """The run's whole configuration as gin source."""
    file: str
    """Where `config` is put, for people."""
    run: str | None
    """The run's folder, to go on with; None: a new run."""
    budget: float | None
    """Seconds."""
    cores: tuple[int, ...]
    """Processor cores to stay on; (): wherever it is started."""

    def popen(self, log: Path) -> subprocess.Popen[bytes]:
        """Start the child; what it prints is appended to `log`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self) | {"parent": os.getpid()})
        # A session of its own: Ctrl-C in the terminal reaches the sweep alone, which then stops its children.
        with log.open("ab") as out:
            child = subprocess.Popen(
                python(PROGRAM),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        assert child.stdin is not None
        child.stdin.write(text.encode())
        child.stdin.close()
        return child


def main(text: str) -> int:
    """Do the task of this text; returns the exit code."""
    values = json.loads(text)
    parent = values.pop("parent")
    task = Task(**values)
    die_with(parent)
    if task.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, task.cores)
    return do(task)


def do(task: Task) -> int:
    """Do the task in this process; returns the exit code."""
    from rrl.store.tracking import STORE, masked

    if masked(os.environ.get(STORE, "")) != task.uri:
        os.environ[STORE] = task.uri
    from rrl.registry import UserError
    from rrl.run import placement, process  # heavy: after the above
    from rrl.store import files

    try:
        if task.cores:  # what is set for the whole machine is too much for a part of it
            os.environ["OMP_NUM_THREADS"] = str(min(placement.threads(), len(task.cores)))
        if task.run is not None:
            return process.resume(task.run, task.budget)
        file = Path(task.file)
        file.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(file, task.config)
        job = process.Job(task.sweep, task.job, task.fingerprint)
        return process.start(task.file, [], task.job, task.budget, job)
    except UserError as error:
        print(f"error: {error}", flush=True)
        return 2
