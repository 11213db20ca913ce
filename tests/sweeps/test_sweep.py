"""Sweeps as they run: real processes, real MLflow, kill -9, two at once, failures, budgets."""

import os
import signal
from pathlib import Path

import pytest
from helpers.sweep_runs import SMALL, begun, gone, rows_in_mlflow, runs, sweep, sweep_folder, wait_for
from helpers.traps import set_traps, untouched
from mlflow import MlflowClient

from rrl.machine.cores import cores
from rrl.machine.processes import family
from rrl.store import results


def test_killed_parent_then_killed_child_then_called_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(cores()))  # of the whole machine: a run gets its share
    call = ("adroit_door_state", "--seeds", "0,1,2", "--jobs", "2")
    log = tmp_path / "log.txt"

    # kill -9 of the parent, once a run has made an update: nothing goes on without it.
    process = begun(tmp_path, *call)
    wait_for(lambda: any("iteration" in p.read_text() for p in tmp_path.glob("runs/*/metrics.jsonl")), process, log)
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
        assert 1 <= int(run.params["threads"]) <= max(1, cores() // 2)
        if run.run_id in before:
            assert run.rows == before[run.run_id]

    # One parent, its children below it, nothing left RUNNING.
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    parent = sweep_folder(tmp_path).name
    stored = client.search_runs(["1"])
    nested = [run for run in stored if run.data.tags.get("mlflow.parentRunId") == parent]
    assert {run.info.run_id for run in nested} >= {run.run_id for run in done.values()}
    assert client.get_run(parent).data.metrics["runs/finished"] == 3
    assert {run.info.status for run in stored if run.info.run_id in {r.run_id for r in done.values()}} == {"FINISHED"}
    assert "RUNNING" not in {run.info.status for run in stored}

    # And once more: nothing to do.
    planned = sweep(tmp_path, *call, "--dry-run")
    assert "3 runs, 3 of them finished already\n" in planned
    assert "3 of 3 runs are finished already" in sweep(tmp_path, *call)
    assert (sweep_folder(tmp_path) / "report.html").exists()


def _is_child(pid: int) -> bool:
    try:
        return b"rrl.sweeps.child" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.slow
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
    text = sweep(set_traps(tmp_path), "adroit_door_state", "--dry-run", "--seeds", "0,1", alone=True)
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
    assert untouched(tmp_path)


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
    # The sweep's own row shows its best run's summary.
    parent = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").get_run(sweep_folder(tmp_path).name)
    names = ("summary/best_success", "summary/last5_success", "summary/auc_success")
    expected = {name: again.last(name) for name in names} | {"runs/finished": 1, "runs/stopped": 0, "runs/failed": 0}
    assert parent.data.metrics == expected
