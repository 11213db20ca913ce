"""kill -9 at any moment, then `rrl resume`: the same bits as a run that was never interrupted.

Real pixels, real MobileNetV2 weights, the pen task with its early terminations.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import chdir
from pathlib import Path

import pytest
import torch
from helpers.measured import lasting
from helpers.stores import prepared
from safetensors.torch import load_file
from typer.testing import CliRunner

from rrl.cli import app

SETTINGS = (
    "Experiment.num_envs = 3",
    "Experiment.eval_every = 150",
    "Experiment.threads = 1",
    "Experiment.workers = 2",
    "Experiment.evaluators = (@SuccessRate(),)",
    "SuccessRate.episodes = 1",
    "Adroit.horizon = 50",
    "DAPG.trajectories = 4",
    "DAPG.init_std_factor = 5.0",  # wild enough to drop pens
    "DAPG.bc_epochs = 1",
    "DAPG.policy_hidden = (32, 32)",
    "DAPG.value_batch = 16",
    "DemoSet.episodes = 1",
)


def command(*args):
    return [sys.executable, "-m", "rrl.cli", *args]


def begin(iterations=3):
    settings = (f"Experiment.iterations = {iterations}", *SETTINGS)
    sets = [part for setting in settings for part in ("--set", setting)]
    return command("run", "adroit_pen_mobilenetv2", *sets)


def finished(arguments, root, code=0):
    """What a command says that ends by itself. It has no process of its own, which would take seconds to import all:
    those that are killed have."""
    with chdir(root):
        done = CliRunner().invoke(app, arguments[3:])
    assert done.exit_code == code, done.output
    return done.output


def run_folder(root):
    (folder,) = (p.parent for p in (root / "runs").glob("*/run.json"))
    return folder


def outcome(root):
    """Tensors of the checkpoint and the policies, and all metrics but times."""
    folder = run_folder(root)
    tensors = {p.name: load_file(p) for p in sorted(folder.glob("*.safetensors"))}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    metrics = [(row["step"], lasting(row["metrics"])) for row in rows]
    return tensors, metrics


def assert_same(a, b):
    assert a[1] == b[1]
    assert a[0].keys() == b[0].keys()
    for file in a[0]:
        assert a[0][file].keys() == b[0][file].keys()
        for name, tensor in a[0][file].items():
            assert torch.equal(tensor, b[0][file][name]), f"{file}: {name}"


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    root = prepared(tmp_path_factory.mktemp("uninterrupted"))
    finished(begin(), root)
    result = outcome(root)
    assert any(m["train/episode_length"] < 50 for _, m in result[1] if "train/return" in m), "no pen was dropped"
    return result


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def children_are_gone(pids):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{pid}").exists() and "Z" not in state(pid) for pid in pids):
            return True
        time.sleep(0.1)
    return False


def state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


def descendants(pid):
    found, queue = [], [pid]
    while queue:
        parent = queue.pop()
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                found.append(int(path.parent.name))
                queue.append(found[-1])
    return found


def started(root, arguments, until):
    """Start a run and wait until `until()`; a run that ends before is returned too."""
    if not (root / "mlflow.db").exists():
        prepared(root)
    with (root / "log.txt").open("a") as log:
        process = subprocess.Popen(arguments, cwd=root, stdout=log, stderr=log)
    deadline = time.monotonic() + 200
    while process.poll() is None and not until():
        assert time.monotonic() < deadline, (root / "log.txt").read_text()
        time.sleep(0.001)  # short, to see a file being written; the core is needed by the run
    return process


def test_killed_at_a_random_moment(reference, tmp_path):
    seed = random.SystemRandom().randrange(10**6)
    print(f"kill time from random.Random({seed})")

    def warm():
        files = list((tmp_path / "runs").glob("*/metrics.jsonl"))
        return bool(files) and "\n" in files[0].read_text()

    process = started(tmp_path, begin(), warm)
    time.sleep(random.Random(seed).uniform(0, 6))
    workers = descendants(process.pid)
    kill(process)
    assert children_are_gone(workers)
    folder = run_folder(tmp_path)
    rows = (folder / "metrics.jsonl").read_text().count("\n")
    output = finished(command("resume", folder.name[:8]), tmp_path)
    assert "resumed" in output or rows >= 4
    assert_same(outcome(tmp_path), reference)
    no_duplicates(tmp_path)


@pytest.mark.slow
def test_killed_while_a_checkpoint_is_written(reference, tmp_path):
    runs = tmp_path / "runs"

    def writing():
        return any(runs.glob("*/checkpoint.safetensors*.part"))

    process = started(tmp_path, begin(), writing)
    assert process.poll() is None, "the run ended before a checkpoint was seen being written"
    kill(process)
    folder = run_folder(tmp_path)
    finished(command("resume", str(folder)), tmp_path)
    assert_same(outcome(tmp_path), reference)
    no_duplicates(tmp_path)


@pytest.mark.slow
def test_sigterm_leaves_a_run_that_resumes(reference, tmp_path):
    def trained():
        files = list((tmp_path / "runs").glob("*/metrics.jsonl"))
        return bool(files) and files[0].read_text().count("\n") > 1

    process = started(tmp_path, begin(), trained)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143, (tmp_path / "log.txt").read_text()
    assert "rrl resume" in (tmp_path / "log.txt").read_text()
    finished(command("resume", run_folder(tmp_path).name), tmp_path)
    assert_same(outcome(tmp_path), reference)


def trained(outcome):
    """What came out, and what the training alone measured, by step: a lengthened run is evaluated at other
    steps."""
    tensors, rows = outcome
    kept = [(step, metrics) for step, metrics in rows if "iteration" in metrics]
    return tensors, [
        (step, {key: value for key, value in metrics.items() if not key.startswith("eval")}) for step, metrics in kept
    ]


@pytest.mark.slow
def test_a_lengthened_run_learns_as_if_it_had_been_longer_from_the_start(reference, tmp_path):
    finished(begin(iterations=1), prepared(tmp_path))
    run = run_folder(tmp_path).name
    finished(command("resume", run, "--iterations", "3"), tmp_path)
    assert_same(trained(outcome(tmp_path)), trained(reference))
    no_duplicates(tmp_path)
    from mlflow import MlflowClient

    data = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").get_run(run).data
    assert (data.params["iterations"], data.tags["iterations"]) == ("1", "3")
    assert "makes a run longer, not shorter" in finished(command("resume", run, "--iterations", "2"), tmp_path, code=2)


def no_duplicates(root):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    run = client.get_run(run_folder(root).name)
    assert run.info.status == "FINISHED"
    assert "train/success" in run.data.metrics
    for name in run.data.metrics:
        points = [point.step for point in client.get_metric_history(run.info.run_id, name)]
        assert len(points) == len(set(points)), f"{name}: {points}"
