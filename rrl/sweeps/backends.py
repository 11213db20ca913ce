"""Where a sweep's runs are computed: processes here, a Ray cluster, or Slurm through submitit."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rrl.machine.cores import cores
from rrl.registry import UserError
from rrl.sweeps.child import Task

PATIENCE = 60.0
"""Seconds that a stopped run may take to close its files before it is killed."""


class Handle(Protocol):
    """A started run."""

    def poll(self) -> int | None:
        """Its exit code (negative: the signal that ended it); None while it runs."""

    def stop(self) -> None:
        """Ask it to stop; it is over when `poll` says so."""

    def kill(self) -> None:
        """End it now."""


class Backend(Protocol):
    """Starts runs, each with `cores_each` processor cores, at most `jobs` at a time."""

    jobs: int
    cores_each: int

    def start(self, task: Task, log: Path) -> Handle:
        """Start a run, or put it into a queue."""

    def close(self) -> None:
        """Let go of what the backend holds; nothing is running any more."""


class Local:
    """Processes on this machine, each on cores of its own."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        available = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        if cores() < len(available):  # a container's quota: which cores are free, the kernel knows better
            available = []
        self.cores_each = max(1, cores() // jobs)
        # More jobs than cores share them, as evenly as it goes.
        self._cores = [
            tuple(available[(slot * self.cores_each + i) % len(available)] for i in range(self.cores_each))
            if available
            else ()
            for slot in range(jobs)
        ]
        self._busy: dict[int, LocalHandle] = {}

    def start(self, task: Task, log: Path) -> LocalHandle:
        slot = next(s for s in range(self.jobs) if s not in self._busy or self._busy[s].poll() is not None)
        self._busy[slot] = LocalHandle(dataclasses.replace(task, cores=self._cores[slot]).popen(log))
        return self._busy[slot]

    def close(self) -> None:
        """Nothing to do."""


class LocalHandle:
    """A child process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def poll(self) -> int | None:
        return self.process.poll()

    def stop(self) -> None:
        if self.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        if self.poll() is None:
            self.process.kill()


def execute(task: dict[str, Any], log: str, folder: str) -> tuple[int, str]:
    """Do a task on a machine of a cluster: (exit code, end of its output).

    Works in `folder`, the sweep's working directory, where this machine sees it (a shared file system), else
    in one of its own below the home directory; then results come back through the MLflow server alone.
    """
    here = Path(folder)
    if not here.is_dir():
        here = Path.home() / "rrl-sweeps" / str(task["sweep"])
        here.mkdir(parents=True, exist_ok=True)
    os.chdir(here)
    path = Path(log)
    process = Task(**task).popen(path)

    try:
        while process.poll() is None:  # `wait` would not notice that the task is cancelled
            time.sleep(0.2)
    except BaseException:  # cancelled: the run closes its files
        process.terminate()
        process.wait()
        raise
    return process.returncode, path.read_text(errors="replace")[-4000:]


class Ray:
    """Tasks on a Ray cluster: the one at RAY_ADDRESS, one that runs on this machine, or a new local one."""

    def __init__(self, jobs: int) -> None:
        ray = _import("ray")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            with contextlib.chdir("/"):  # its workers take modules of this folder first; `execute` says where to work
                ray.init(log_to_driver=False, include_dashboard=False, logging_level="warning")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"Ray can't be used: {error}; see RAY_ADDRESS") from error
        self._ray = ray
        sizes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        total = int(sum(size.get("CPU", 0) for size in sizes))
        self.jobs = max(1, min(jobs, total))
        # A run stays on one machine.
        largest = int(max(size.get("CPU", 0) for size in sizes))
        self.cores_each = max(1, min(total // self.jobs, largest))
        gpus = min(1.0, sum(size.get("GPU", 0) for size in sizes) / self.jobs)
        # No retries: a run that failed is listed, and goes on from its checkpoint when called again.
        self._execute = ray.remote(num_cpus=self.cores_each, num_gpus=gpus, max_retries=0)(execute)

    def start(self, task: Task, log: Path) -> RayHandle:
        reference = self._execute.remote(dataclasses.asdict(task), str(log), str(Path.cwd()))
        return RayHandle(self._ray, reference, log)

    def close(self) -> None:
        self._ray.shutdown()


class RayHandle:
    """A Ray task."""

    def __init__(self, ray: Any, reference: Any, log: Path) -> None:
        self._ray, self._reference, self._log = ray, reference, log

    def poll(self) -> int | None:
        ready, _ = self._ray.wait([self._reference], timeout=0)
        return _outcome(lambda: self._ray.get(self._reference), self._log) if ready else None

    def stop(self) -> None:
        self._ray.cancel(self._reference)

    def kill(self) -> None:
        self._ray.cancel(self._reference, force=True)


class Slurm:
    """Batch jobs through submitit. `settings` are in submitit's words (`slurm_partition`, `timeout_min`,
    `mem_gb`, `gpus_per_node`, ...); `cluster=local` tries it without Slurm."""

    def __init__(self, jobs: int | None, settings: Mapping[str, str], folder: Path) -> None:
        submitit = _import("submitit")
        values: dict[str, Any] = {k: int(v) if v.lstrip("-").isdigit() else v for k, v in settings.items()}
        cluster = values.pop("cluster", "slurm")
        if cluster == "local":  # submitit ends local jobs after two minutes; runs end by themselves
            values.setdefault("timeout_min", 60 * 24 * 365)
        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
            self.cores_each = int(values.pop("cpus_per_task", 4 if cluster == "slurm" else 1))
            self._executor.update_parameters(name="rrl", cpus_per_task=self.cores_each, **values)
        except (RuntimeError, NameError, TypeError, ValueError) as error:
            raise UserError(f"submitit can't submit to {cluster!r}: {error}; see --slurm") from error
        self.jobs = jobs or 1000  # the queue is Slurm's business
        # Those of an earlier call that was killed would do the same runs as ours, from the same checkpoints.
        if cluster == "slurm":
            for stale in Path(folder).glob("*_submitted.pkl"):
                submitit.SlurmJob(folder, stale.name.removesuffix("_submitted.pkl")).cancel(check=False)

    def start(self, task: Task, log: Path) -> SlurmHandle:
        try:
            job = self._executor.submit(execute, dataclasses.asdict(task), str(log), str(Path.cwd()))
        except Exception as error:  # sbatch refused: an unknown partition, too many jobs, ...
            raise UserError(f"submitit could not submit {task.job}: {error}; see --slurm") from error
        return SlurmHandle(job, log)

    def close(self) -> None:
        """Nothing to do."""


class SlurmHandle:
    """A batch job."""

    def __init__(self, job: Any, log: Path) -> None:
        self._job, self._log = job, log

    def poll(self) -> int | None:
        return _outcome(self._job.result, self._log) if self._job.done() else None

    def stop(self) -> None:
        self._job.cancel(check=False)

    kill = stop


def _outcome(result: Callable[[], tuple[int, str]], log: Path) -> int:
    """The exit code of a task on a cluster; its output too, where this machine doesn't see the log."""
    try:
        code, text = result()
    except Exception as error:  # the machine went down, the task was cancelled: each engine has its own
        *trace, last = str(error).strip().splitlines() or [""]  # an engine's error may hold the far one's trace
        with log.open("a") as file:
            file.write("".join(f"{line}\n" for line in trace) + f"error: {type(error).__name__}: {last}\n")
        return 1
    if not log.exists():
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(text)
    return code


def stop_all(handles: list[Handle]) -> None:
    """Stop runs, and kill those that take too long."""
    for handle in handles:
        handle.stop()
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and any(handle.poll() is None for handle in handles):
        time.sleep(0.1)
    for handle in handles:
        handle.kill()


def _import(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"{package} is not installed: pip install 'rrl[sweep]' ({error})") from error


@dataclass(frozen=True)
class Kind:
    """A backend that `--backend` can name."""

    make: Callable[[int | None, int, Mapping[str, str], Path], Backend]
    """From runs at a time (None: as many as it takes), runs in all, settings and the sweep's folder."""
    package: str = ""
    """What it needs installed."""
    settings: bool = False
    """Does it take settings (`--slurm NAME=VALUE`)?"""
    here: bool = False
    """Do its runs share this machine's cores?"""


BACKENDS = {
    "local": Kind(lambda jobs, count, *_: Local(min(jobs or count, count)), here=True),
    "ray": Kind(lambda jobs, count, *_: Ray(min(jobs or count, count)), "ray"),
    "slurm": Kind(lambda jobs, _, settings, folder: Slurm(jobs, settings, folder / "slurm"), "submitit", settings=True),
}


def find(name: str, settings: Sequence[str]) -> tuple[Kind, dict[str, str]]:
    """A backend, and its settings as name -> value; UserError if either can't be used."""
    if name not in BACKENDS:
        raise UserError(f"--backend takes {', '.join(BACKENDS)}; got {name}")
    kind = BACKENDS[name]
    if settings and not kind.settings:
        raise UserError(f"--slurm goes with --backend {', '.join(n for n, k in BACKENDS.items() if k.settings)}")
    wrong = [text for text in settings if "=" not in text]
    if wrong:
        raise UserError(f"--slurm takes NAME=VALUE, such as slurm_partition=gpu; got {wrong[0]}")
    if kind.package:
        _import(kind.package)
    return kind, dict(text.split("=", 1) for text in settings)
