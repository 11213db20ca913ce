"""Sweeps on Ray and through submitit, and Optuna's searches: the real packages, on this machine."""

import json
import re
from pathlib import Path

import pytest
from helpers.sweep_runs import SMALL, rows_in_mlflow, runs, sweep, sweep_folder
from helpers.traps import set_traps, untouched

from rrl.sweeps import backends


def test_optuna_search_goes_on_where_it_stopped(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    clone = ("Experiment.agent = @BC()", "Experiment.iterations = 0", "BC.bc_epochs = 1")
    rest = tuple(text for text in SMALL if not text.startswith(("DAPG.", "Experiment.iter")))
    call = ["adroit_door_state", "--search", "optuna", "--metric", "eval/return", "--jobs", "1"]
    call += ["--grid", "BC.bc_lr = '1e-4 .. 1e-2 log'", "--grid", "BC.policy_hidden = ((8,), (16, 16))"]
    sweep(tmp_path, *call, "--trials", "1", sets=rest + clone)
    text = sweep(tmp_path, *call, "--trials", "2", sets=rest + clone)
    done = runs(tmp_path)
    assert len(done) == 2
    best = max(run.last("eval/return") or float("-inf") for run in done.values())
    assert f"best eval/return {best:.4g}: BC.bc_lr = " in text
    # A return that is no number, as earlier versions wrote it: that combination failed, the other is the best.
    first, second = done.values()
    best, log = first.last("eval/return"), second.folder / "metrics.jsonl"
    log.write_text(re.sub(r'("eval/return": )[^,}]+', r"\1Infinity", log.read_text()))
    again = sweep(tmp_path, *call, "--trials", "2", sets=rest + clone)
    assert f"best eval/return {best:.4g}: BC.bc_lr = " in again
    facts = json.loads((sweep_folder(tmp_path) / "sweep.json").read_text())
    assert len(facts["trials"]) == len(facts["jobs"]) == 2


def test_ray_on_a_local_cluster_of_two_workers(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    call = ("adroit_door_state", "--seeds", "0,1", "--backend", "ray", "--jobs", "2")
    text = sweep(set_traps(tmp_path), *call, alone=True)
    assert untouched(tmp_path)
    assert "on ray" in text
    done = runs(tmp_path)
    assert [run.status for run in done.values()] == ["finished", "finished"]
    for run in done.values():
        assert run.params["threads"] == "1"  # each has half of the cluster's two cores
        rows_in_mlflow(tmp_path, run)


def test_of_a_far_trace_the_error_is_told_and_the_log_has_all(tmp_path: Path) -> None:
    def result() -> tuple[int, str]:
        raise RuntimeError("the job failed with trace:\n----\nTraceback ...\nOSError: no space left\n")

    log = tmp_path / "log"
    assert backends._outcome(result, log) == 1
    assert log.read_text().splitlines()[-1] == "error: RuntimeError: OSError: no space left"
    assert "the job failed with trace:" in log.read_text()


def test_slurm_through_submitits_local_executor(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    call = ("adroit_door_state", "--backend", "slurm", "--slurm", "cluster=local")
    text = sweep(set_traps(tmp_path), *call, alone=True)
    assert untouched(tmp_path)
    assert "finished: adroit_door_state-seed0" in text
    (run,) = runs(tmp_path).values()
    assert run.status == "finished"
    rows_in_mlflow(tmp_path, run)
