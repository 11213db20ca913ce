"""Small real sweeps for tests: state-based runs of seconds, and what to ask of them afterwards."""

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

from mlflow import MlflowClient
from typer.testing import CliRunner

from helpers.stores import prepared
from rrl.cli import app
from rrl.store import results

RRL = Path(sys.executable).with_name("rrl")
"""The installed command. (`python -m` takes modules of the working folder first.)"""
SMALL = (
    "Experiment.iterations = 3",
    "Experiment.num_envs = 2",
    "Experiment.evaluators = (@SuccessRate(),)",
    "SuccessRate.episodes = 2",
    "Adroit.horizon = 25",
    "DAPG.trajectories = 2",
    "DAPG.bc_epochs = 1",
    "DAPG.policy_hidden = (8,)",
    "DAPG.value_batch = 8",
    "DemoSet.episodes = 1",
)


def command(*arguments: str, sets: tuple[str, ...] = SMALL) -> list[str]:
    overrides = [part for text in sets for part in ("--set", text)]
    return [str(RRL), "sweep", *arguments, *overrides]


def sweep(root: Path, *arguments: str, code: int = 0, sets: tuple[str, ...] = SMALL, alone: bool = False) -> str:
    """What a sweep says that goes to its end. It is led from this process, unless it is to be `alone` in one of its
    own; its runs have processes of their own."""
    _prepare(root, arguments)
    words = command(*arguments, sets=sets)
    if alone:
        done = subprocess.run(words, cwd=root, capture_output=True, text=True, timeout=400)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout
    with chdir(root):
        result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == code, result.output
    return result.stdout


def begun(root: Path, *arguments: str) -> subprocess.Popen[bytes]:
    _prepare(root, arguments)
    with (root / "log.txt").open("a") as log:
        return subprocess.Popen(command(*arguments), cwd=root, stdout=log, stderr=log)


def _prepare(root: Path, arguments: tuple[str, ...]) -> None:
    if "--dry-run" not in arguments and not (root / "mlflow.db").exists():
        prepared(root)


def sweep_folder(root: Path) -> Path:
    (folder,) = (path.parent for path in (root / "runs").glob("*/sweep.json"))
    return folder


def runs(root: Path) -> dict[str, results.Result]:
    found = results.find([], root / "runs")
    assert len({run.job for run in found}) == len(found), "a job was done twice"
    return {str(run.job): run for run in found}


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def gone(pids: list[int]) -> bool:
    """Every process has ended (or is a zombie that nobody has collected yet)."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        alive = []
        for pid in pids:
            try:
                state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
            except OSError:
                continue
            alive += [pid] if state != "Z" else []
        if not alive:
            return True
        time.sleep(0.1)
    return False


def rows_in_mlflow(root: Path, run: results.Result) -> None:
    """MLflow has every metric of every row, once."""
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    for name in {name for row in run.rows for name in row.metrics}:
        points = [(p.step, p.value) for p in client.get_metric_history(run.run_id, name)]
        assert sorted(points) == sorted(zip(*run.series(name), strict=True)), name
