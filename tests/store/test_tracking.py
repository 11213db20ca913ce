"""MLflow stores: their addresses, and their beginning."""

import subprocess
import sys
import time

import pytest

from rrl.registry import UserError
from rrl.store import tracking


@pytest.mark.parametrize("name", ["plain", "a b", "a?b#c%20d é;e", "%3F", "?"])
def test_a_stores_address_means_its_file(tmp_path, monkeypatch, name):
    path = tmp_path / name / "mlflow.db"
    assert tracking.local(tracking.address(path)) == path
    path.parent.mkdir()
    monkeypatch.chdir(path.parent)
    assert tracking.local(tracking.store()) == path
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.store())  # as a sweep's child gets it
    assert tracking.local(tracking.store()) == path


def test_usual_addresses_are_as_they_were(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tracking.store() == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///sub/other.db")
    assert tracking.store() == f"sqlite:///{tmp_path}/sub/other.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert tracking.local(tracking.store()) is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:/other.db")
    with pytest.raises(UserError, match="no address of an MLflow store"):
        tracking.store()


@pytest.mark.parametrize("name", ["mlflow.db", "a?b#c%20d.db"])
def test_a_store_moves_with_its_project_and_is_copied_with_it(tmp_path, name):
    old, new = tmp_path / "old", tmp_path / "new"
    for project in (old, new):
        project.mkdir()
        (project / name).touch()
    kept = tracking.kept(tracking.address(old / name), old)
    assert tracking.store_of(kept, old) == tracking.address(old / name)
    if name == "mlflow.db":  # the address of the other one can't be kept short
        assert kept == "sqlite:///mlflow.db"
        assert tracking.store_of(kept, new) == tracking.address(new / name)
    (old / name).unlink()
    assert tracking.store_of(tracking.address(old / name), new) == tracking.address(new / name)  # an earlier version's


def test_a_folder_chooses_no_store_elsewhere(tmp_path, monkeypatch):
    project, shared = tmp_path / "project", tmp_path / "mlflow.db"
    project.mkdir()
    shared.touch()
    for elsewhere in (f"sqlite:///{shared}", "http://127.0.0.1:5000", "postgresql://host/runs"):
        assert tracking.kept(elsewhere, project) == elsewhere
        with pytest.raises(UserError, match="if that is yours, set MLFLOW_TRACKING_URI=") as told:
            tracking.store_of(elsewhere, project)
        assert str(told.value).endswith(elsewhere)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", elsewhere)
        assert tracking.store_of(elsewhere, project) == elsewhere
        monkeypatch.delenv("MLFLOW_TRACKING_URI")


def test_an_interrupted_first_start_leaves_no_half_of_a_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start = "from rrl.store.tracking import MLflowTracker; MLflowTracker.start('x')"
    child = subprocess.Popen([sys.executable, "-c", start])
    while not [*tmp_path.rglob("mlflow.db-journal")]:  # its first tables are being written
        assert child.poll() is None
        time.sleep(0.001)
    child.kill()
    child.wait()
    assert not (tmp_path / "mlflow.db").exists()
    run = tracking.MLflowTracker.start("y")
    assert run.client.get_run(run.run_id).info.run_name == "y"
    assert sorted(path.name for path in tmp_path.glob("mlflow.db*")) == ["mlflow.db", "mlflow.db.lock"]


def test_passwords_are_neither_shown_nor_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    address = "http://me:s3cret@127.0.0.1:9"  # nothing listens there
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    shown = "http://me:***@127.0.0.1:9"
    assert tracking.store() == shown and tracking.unmasked(shown) == address
    with pytest.raises(UserError, match=r"http://me:\*\*\*@127\.0\.0\.1:9 can't be used") as told:
        tracking.MLflowTracker.start("x")
    assert "s3cret" not in str(told.value)
    assert tracking.MLflowTracker(None, address, "x").uri == shown
    for other in ("http://you:s3cret@127.0.0.1:9", shown):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", other)
        with pytest.raises(UserError, match="passwords of MLflow stores are not kept: set MLFLOW_TRACKING_URI to"):
            tracking.unmasked(shown)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql+psycopg2://me:a%40b@host:5432/runs?x=1", "postgresql+psycopg2://me:***@host:5432/runs?x=1"),
        ("http://me@host", "http://me@host"),
        ("sqlite:///a:b@c/mlflow.db", "sqlite:///a:b@c/mlflow.db"),
        ("http://[", "http://["),
    ],
)
def test_of_an_address_the_password_alone_is_masked(address, shown):
    assert tracking.masked(address) == shown
