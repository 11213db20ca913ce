"""Sweeps as they run: real processes, real MLflow, kill -9, two at once, Ray, submitit, Optuna."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from rrl import results
from rrl.processes import family

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
    return [sys.executable, "-m", "rrl.cli", "sweep", *arguments, *overrides]


def sweep(root: Path, *arguments: str, code: int = 0, sets: tuple[str, ...] = SMALL) -> str:
    done = subprocess.run(
        command(*arguments, sets=sets), cwd=root, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def begun(root: Path, *arguments: str) -> subprocess.Popen[bytes]:
    with (root / "log.txt").open("a") as log:
        return subprocess.Popen(command(*arguments), cwd=root, stdout=log, stderr=log)


def sweep_folder(root: Path) -> Path:
    (folder,) = (path.parent for path in (root / "runs").glob("*/sweep.json"))
    return folder


def runs(root: Path) -> dict[str, results.Result]:
    found = results.find([], root / "runs")
    assert len({run.job for run in found}) == len(found), "a job was done twice"
    return {str(run.job): run for run in found}


def wait_for(condition, process: subprocess.Popen[bytes], log: Path) -> None:
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


def test_killed_parent_then_killed_child_then_called_again(tmp_path: Path) -> None:
    call = ("adroit_door_state", "--seeds", "0,1,2", "--jobs", "2")
    log = tmp_path / "log.txt"

    # kill -9 of the parent, once a run has made an update: nothing goes on without it.
    process = begun(tmp_path, *call)
    wait_for(
        lambda: any("iteration" in p.read_text() for p in tmp_path.glob("runs/*/metrics.jsonl")), process, log
    )
    everyone = family(process.pid)
    assert len(everyone) > 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert gone(everyone)
    finished = {run.run_id for run in runs(tmp_path).values() if run.status == "finished"}

    # kill -9 of a child: the others go on, the sweep says which failed and why, and exits 1.
    process = begun(tmp_path, *call)
    begin = len(log.read_text())

    def child_pid() -> int | None:
        children = [pid for pid in family(process.pid)[1:] if _is_child(pid)]
        return children[0] if children and "started" in log.read_text()[begin:] else None

    def some_child_trains() -> bool:
        return child_pid() is not None and any(r.status == "running" for r in runs(tmp_path).values())

    if len(finished) < 3:
        wait_for(some_child_trains, process, log)
        victim = child_pid()
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        assert process.wait(300) == 1, log.read_text()
        text = log.read_text()[begin:]
        assert "killed by SIGKILL" in text
        assert "FAILED" in text
        assert "log:" in text
    assert gone(family(process.pid)[1:])

    # The same call completes it: finished runs are not repeated, the others go on.
    before = {run.run_id: run.rows for run in runs(tmp_path).values() if run.status == "finished"}
    text = sweep(tmp_path, *call)
    assert f"{len(before)} of 3 runs are finished already" in text
    done = runs(tmp_path)
    assert sorted(done) == [f"adroit_door_state-seed{seed}" for seed in range(3)]
    for run in done.values():
        assert run.status == "finished"
        assert [row.metrics["iteration"] for row in run.rows if "iteration" in row.metrics] == [1, 2, 3]
        rows_in_mlflow(tmp_path, run)
        if run.run_id in before:
            assert run.rows == before[run.run_id]

    # One parent, its children below it, nothing left RUNNING.
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    parent = sweep_folder(tmp_path).name
    stored = client.search_runs(["1"])
    nested = [run for run in stored if run.data.tags.get("mlflow.parentRunId") == parent]
    assert {run.info.run_id for run in nested} >= {run.run_id for run in done.values()}
    assert client.get_run(parent).data.metrics["runs/finished"] == 3
    assert {run.info.status for run in stored if run.info.run_id in {r.run_id for r in done.values()}} == {
        "FINISHED"
    }
    assert "RUNNING" not in {run.info.status for run in stored}

    # And once more: nothing to do.
    assert "3 of 3 runs are finished already" in sweep(tmp_path, *call)
    assert (sweep_folder(tmp_path) / "report.html").exists()


def _is_child(pid: int) -> bool:
    try:
        return b"rrl.sweeps.child" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_two_sweeps_at_once_on_one_store(tmp_path: Path) -> None:
    pair = [
        begun(tmp_path, "adroit_door_state", "--seeds", seeds, "--jobs", "2", "--name", seeds)
        for seeds in ("0,1", "2,3")
    ]
    assert [process.wait(400) for process in pair] == [0, 0], (tmp_path / "log.txt").read_text()
    done = results.find([], tmp_path / "runs")
    assert len(done) == 4
    for run in done:
        assert run.status == "finished"
        rows_in_mlflow(tmp_path, run)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert len(client.search_experiments(filter_string="name = 'rrl'")) == 1
    assert len({run.sweep for run in done}) == 2


def test_failed_runs_are_listed_and_a_dry_run_does_nothing(tmp_path: Path) -> None:
    text = sweep(tmp_path, "adroit_door_state", "--dry-run", "--seeds", "0,1")
    assert "2 runs" in text
    assert "GB of memory" in text
    assert "on disk" in text
    assert "unknown" not in text
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "mlflow.db").exists()
    # 8 x 25 samples are no batch of 512: this run can't learn, and says why.
    bad = ("DAPG.bc_batch = 4_096",)
    text = sweep(tmp_path, "adroit_door_state", "--jobs", "1", code=1, sets=(*SMALL, *bad))
    assert "FAILED adroit_door_state-seed0" in text
    assert "bc_batch = 4096" in text
    log = Path(text.split("log: ")[1].splitlines()[0])
    assert "bc_batch" in (tmp_path / log).read_text()


def test_a_budget_stops_runs_and_another_call_goes_on(tmp_path: Path) -> None:
    call = ("adroit_door_state", "--jobs", "1")
    text = sweep(tmp_path, *call, "--budget", "0.01s")
    assert "1 runs are not finished" in text
    (run,) = runs(tmp_path).values()
    assert (run.status, run.reason) == ("stopped", "the budget was over")
    sweep(tmp_path, *call)
    (again,) = runs(tmp_path).values()
    assert again.status == "finished"
    assert again.run_id == run.run_id


def test_optuna_search_goes_on_where_it_stopped(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    clone = ("Experiment.agent = @BC()", "Experiment.iterations = 0", "BC.bc_epochs = 1")
    rest = tuple(text for text in SMALL if not text.startswith(("DAPG.", "Experiment.iter")))
    call = ["adroit_door_state", "--search", "optuna", "--metric", "eval/return", "--jobs", "1"]
    call += ["--grid", "BC.bc_lr = '1e-4 .. 1e-2 log'", "--grid", "BC.policy_hidden = ((8,), (16, 16))"]
    sweep(tmp_path, *call, "--trials", "1", sets=rest + clone)
    text = sweep(tmp_path, *call, "--trials", "3", sets=rest + clone)
    done = runs(tmp_path)
    assert len(done) == 3
    best = max(run.last("eval/return") or float("-inf") for run in done.values())
    assert f"best eval/return {best:.4g}: BC.bc_lr = " in text
    facts = json.loads((sweep_folder(tmp_path) / "sweep.json").read_text())
    assert len(facts["trials"]) == len(facts["jobs"]) == 3


def test_ray_on_a_local_cluster_of_two_workers(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    text = sweep(tmp_path, "adroit_door_state", "--seeds", "0,1", "--backend", "ray", "--jobs", "2")
    assert "on ray" in text
    done = runs(tmp_path)
    assert [run.status for run in done.values()] == ["finished", "finished"]
    for run in done.values():
        assert run.params["threads"] == "1"  # each has half of the cluster's two cores
        rows_in_mlflow(tmp_path, run)


def test_slurm_through_submitits_local_executor(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    text = sweep(tmp_path, "adroit_door_state", "--backend", "slurm", "--slurm", "cluster=local")
    assert "finished: adroit_door_state-seed0" in text
    (run,) = runs(tmp_path).values()
    assert run.status == "finished"
    rows_in_mlflow(tmp_path, run)
