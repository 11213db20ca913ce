"""A run goes on without its screen, and its status is settled however it is asked to end: real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.stores import prepared
from helpers.terminals import close_after, on_terminal, read_until
from mlflow import MlflowClient

from rrl.store import checkpoint, results

SMALL = (
    "Experiment.num_envs = 2",
    "Experiment.threads = 1",
    "Experiment.evaluators = (@SuccessRate(),)",
    "SuccessRate.episodes = 2",
    "Adroit.horizon = 20",
    "DAPG.trajectories = 2",
    "DAPG.bc_epochs = 1",
    "DAPG.policy_hidden = (8,)",
    "DAPG.value_batch = 8",
    "DemoSet.episodes = 1",
)


def command(iterations: int, workers: int = 0, *others: str) -> list[str]:
    small = [setting for setting in SMALL if setting.split(" =")[0] not in {other.split(" =")[0] for other in others}]
    settings = (f"Experiment.iterations = {iterations}", f"Experiment.workers = {workers}", *small, *others)
    sets = [part for setting in settings for part in ("--set", setting)]
    return [sys.executable, "-m", "rrl.cli", "run", "adroit_door_state", *sets]


def outcome(root: Path) -> tuple[str, str, str, int]:
    """(status and reason in the run's folder, status in MLflow, updates written down)."""
    (folder,) = (path.parent for path in (root / "runs").glob("*/run.json"))
    written = results.files.read_json(folder / results.STATUS)
    tracked = MlflowClient(f"sqlite:///{root / 'mlflow.db'}").get_run(folder.name).info.status
    updates = sum("iteration" in row.metrics for row in results.read(folder).rows)
    return written["status"], written["reason"], tracked, updates


@pytest.mark.parametrize("screen", ["full", "pipe", "terminal", "nohup"])
def test_a_run_goes_on_without_its_screen(screen: str, tmp_path: Path) -> None:
    root, arguments = prepared(tmp_path), command(iterations=3)
    if screen == "full":
        with Path("/dev/full").open("wb") as full:
            process = subprocess.Popen(arguments, cwd=root, stdout=full, stderr=full)
    elif screen == "pipe":  # as `2>&1 | head -1`
        process = subprocess.Popen(arguments, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert process.stdout is not None
        close_after(process.stdout.fileno(), b"run ")
        process.stdout = None
    else:
        nohup = ["sh", "-c", 'trap "" HUP; exec "$@"', "nohup"] if screen == "nohup" else []
        process, end = on_terminal(root, [*nohup, *arguments], hangup=screen == "nohup")
        close_after(end, b"run ")
    assert process.wait(200) == 0
    assert outcome(root) == ("FINISHED", "", "FINISHED", 3)


def test_a_hangup_stops_a_run_as_sigterm_does(tmp_path: Path) -> None:
    process, end = on_terminal(prepared(tmp_path), command(iterations=10_000, workers=2), hangup=True)
    close_after(end, b"steps 80")
    assert process.wait(100) == 128 + signal.SIGHUP
    status, reason, tracked, updates = outcome(tmp_path)
    assert (status, reason, tracked) == ("STOPPED", "SIGHUP", "KILLED")
    assert updates >= 1


@pytest.mark.parametrize(("presses", "episodes"), [(1, 2), (2, 800)])
def test_ctrl_c_finishes_the_update_and_twice_stops_at_once(presses: int, episodes: int, tmp_path: Path) -> None:
    """On a terminal, whose Ctrl-C reaches the workers too."""
    arguments = command(200 if presses == 1 else 1, 2, f"DAPG.trajectories = {episodes}")
    process, end = on_terminal(prepared(tmp_path), arguments, hangup=True)
    text = read_until(end, b"update 2/" if presses == 1 else b"update 1/1: sampling")
    os.write(end, b"\x03")
    text += read_until(end, b"Ctrl-C again stops at once")
    if presses == 2:
        time.sleep(0.7)
        os.write(end, b"\x03")
    text += read_until(end, None)
    assert process.wait(60) == 128 + signal.SIGINT
    status, reason, tracked, updates = outcome(tmp_path)
    assert (status, reason, tracked) == ("STOPPED", "Ctrl-C", "KILLED")
    assert (updates >= 2) if presses == 1 else (updates == 0)
    (folder,) = (path.parent for path in (tmp_path / "runs").glob("*/run.json"))
    _, values = checkpoint.load_file(folder / "checkpoint.safetensors")
    assert values["iteration"] == updates  # nothing that was written down is lost
    assert f"go on after the last checkpoint with: rrl resume {folder.name[:8]}".encode() in b" ".join(text.split())


def test_what_a_run_ends_for_at_once_is_told(tmp_path: Path) -> None:
    process, end = on_terminal(prepared(tmp_path), command(1, 0, "DAPG.bc_epochs = 20_000"), hangup=True)
    read_until(end, b"warm start: cloning")
    os.write(end, b"\x03")
    text = b" ".join(read_until(end, None).split())
    assert process.wait(60) == 128 + signal.SIGINT
    assert b"Ctrl-C: stopping at once: training has not begun" in text
    assert b"go on from the start with: rrl resume" in text


INSISTENT = """
import os, signal, sys
from rrl.cli import app
from rrl.machine.console import Display
from rrl.run import process
from rrl.run.loop import Loop
from rrl.store.tracking import MLflowTracker

def also(owner, name, numbers, when=lambda arguments: True):
    original = getattr(owner, name)
    def signalled(*arguments, **options):
        if when(arguments):
            for number in numbers:
                os.kill(os.getpid(), number)
        return original(*arguments, **options)
    setattr(owner, name, signalled)

everything = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
also(Loop, "in_words", [signal.SIGTERM])
also(Display, "line", everything, lambda arguments: arguments[1].startswith("stopped"))
also(MLflowTracker, "end", everything)
also(process, "write_status", everything, lambda arguments: arguments[1] != "RUNNING")
app()
"""
"""`rrl`, which gets SIGTERM in the first update, and more signals at each step of writing down how it ended."""


def test_the_status_is_settled_whatever_signals_come_meanwhile(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", INSISTENT, *command(iterations=10_000)[3:]]
    done = subprocess.run(arguments, cwd=prepared(tmp_path), capture_output=True, text=True, timeout=300)
    assert done.returncode == 143, done.stderr
    assert outcome(tmp_path)[:3] == ("STOPPED", "SIGTERM", "KILLED")


def test_two_sigterms_a_millisecond_apart(tmp_path: Path) -> None:
    with (prepared(tmp_path) / "log.txt").open("w") as log:
        process = subprocess.Popen(command(iterations=10_000), cwd=tmp_path, stdout=log, stderr=log)
    deadline = time.monotonic() + 300
    while "update 1/" not in (tmp_path / "log.txt").read_text():
        assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log.txt").read_text()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    assert process.wait(200) == 143
    assert outcome(tmp_path)[:3] == ("STOPPED", "SIGTERM", "KILLED")
