"""`rrl sync`: MLflow gets what it lacks of a run, from its folder, and nothing twice."""

import json
import shutil
import subprocess
import sys

import pytest
from helpers import adroit
from helpers.stores import prepared
from mlflow import MlflowClient
from typer.testing import CliRunner

from rrl import cli

RUN = ("Experiment.iterations = 2", "Experiment.workers = 0", *adroit.SHORT_RUN)


def rrl(*words, code=0):
    done = CliRunner().invoke(cli.app, [*words])
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with a finished run of two updates."""
    root = prepared(tmp_path_factory.mktemp("project"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        rrl("run", "adroit_pen_state", *(part for text in RUN for part in ("--set", text)))
    return root


@pytest.fixture
def here(project, tmp_path, monkeypatch):
    """A copy to work in."""
    monkeypatch.chdir(shutil.copytree(project, tmp_path / "project"))
    return tmp_path / "project"


def record(store):
    """What a store has of its one run, but for what names the run."""
    client = MlflowClient(f"sqlite:///{store}")
    (run,) = client.search_runs([client.get_experiment_by_name("rrl").experiment_id])
    names = run.data.metrics
    points = {name: [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, name)] for name in names}
    tags = {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")}
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    return (run.info.status, run.info.run_name, run.data.params, tags, points), files


def test_another_store_gets_all_of_it_once(here):
    whole, files = record(here / "mlflow.db")
    (folder,) = here.glob("runs/*/run.json")
    for said in ("a new run", "run"):
        out = rrl("sync", "--to", "sqlite:///other.db")
        assert f"rows of metrics, {len(files) - 1} files, finished: {said} " in out
        there, sent = record(here / "other.db")
        assert there == whole and sent == files - {"config.gin.txt"}
    known = json.loads((folder.parent / "tracking.json").read_text())
    assert known.keys() == {"sqlite:///other.db"}
    rrl("sync")  # its own store, which lacks nothing
    assert record(here / "mlflow.db") == (whole, files)


@pytest.mark.parametrize("command", ["sync", "resume"])
def test_a_lost_store_is_told_all_again(here, command):
    whole, files = record(here / "mlflow.db")
    (here / "mlflow.db").unlink()
    prepared(here)
    (run,) = [path.parent.name for path in here.glob("runs/*/run.json")]
    # In a process of its own: MLflow keeps files open in this one.
    words = [sys.executable, "-m", "rrl", command, run]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "has lost this run: it is told all of it again" in done.stdout
    shutil.copy(here / "mlflow.db", here / "again.db")
    again, sent = record(here / "again.db")
    assert again == whole and sent >= files - {"config.gin.txt"}


def test_a_server_that_is_not_there_is_told(here, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    out = rrl("sync", "--to", "http://127.0.0.1:9", code=2)
    assert "the MLflow store http://127.0.0.1:9 can't be used" in out
    assert "--to is somewhere, a store of plain files" in rrl("sync", "--to", "somewhere", code=2)
    assert not [*here.glob("runs/*/tracking.json")]
