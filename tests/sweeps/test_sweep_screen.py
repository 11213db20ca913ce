"""A sweep goes on without its screen, and a hangup stops it and its runs."""

import signal
import subprocess
from pathlib import Path

from helpers.stores import prepared
from helpers.sweep_runs import SMALL, command, gone, runs, sweep_folder
from helpers.terminals import close_after, on_terminal
from mlflow import MlflowClient
from psutil import Process

ONE = (*SMALL, "Experiment.threads = 1", "Experiment.workers = 0")
ENDLESS = ("Experiment.iterations = 100_000", *(text for text in ONE if "iterations" not in text))


def status(root: Path) -> str:
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    return str(client.get_run(sweep_folder(root).name).info.status)


def test_a_sweep_goes_on_without_its_screen(tmp_path: Path) -> None:
    arguments = command("adroit_door_state", "--jobs", "1", sets=ONE)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(arguments, cwd=prepared(tmp_path), stdout=full, stderr=full, timeout=300)
    assert done.returncode == 0
    assert [run.status for run in runs(tmp_path).values()] == ["finished"]
    assert status(tmp_path) == "FINISHED"


def test_a_plan_that_cannot_be_printed_is_no_success(tmp_path: Path) -> None:
    arguments = command("adroit_door_state", "--jobs", "1", "--dry-run", sets=ONE)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(arguments, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr


def test_a_hangup_stops_a_sweep_and_its_runs(tmp_path: Path) -> None:
    arguments = command("adroit_door_state", "--jobs", "1", sets=ENDLESS)
    process, end = on_terminal(prepared(tmp_path), arguments, hangup=True)
    children: list[int] = []

    def begun() -> bool:
        children[:] = [child.pid for child in Process(process.pid).children(recursive=True)]
        return any((tmp_path / "runs").glob("*/metrics.jsonl"))

    close_after(end, begun)
    assert process.wait(100) == 128 + signal.SIGHUP
    assert children and gone(children)
    (run,) = runs(tmp_path).values()
    assert (run.status, run.reason) == ("stopped", "SIGTERM")
    assert status(tmp_path) == "KILLED"
