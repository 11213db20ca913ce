"""`rrl export --mlflow`: models that MLflow loads and that act as the policy does."""

import re

import mlflow
import numpy as np
import pytest
from helpers.stores import prepared
from mlflow import MlflowClient
from typer.testing import CliRunner

import rrl
from rrl.cli import app
from rrl.run import process

STATE = [
    "Experiment.iterations = 1",
    "Experiment.num_envs = 4",
    "Experiment.workers = 0",
    "Experiment.evaluators = ()",
    "Adroit.horizon = 10",
    "DAPG.trajectories = 4",
    "DAPG.bc_epochs = 1",
    "DemoSet.episodes = 2",
]
PICTURES = [
    "Experiment.iterations = 1",
    "Experiment.num_envs = 1",
    "Experiment.workers = 0",
    "Experiment.log_every = 20",
    "Experiment.evaluators = ()",
    "DMControl.horizon = 10",
    "RAD.init_steps = 4",
    "RAD.batch = 2",
    "RAD.hidden = (8,)",
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a store, which MLflow's own functions use too."""
    monkeypatch.chdir(prepared(tmp_path))
    # Not `mlflow.set_tracking_uri`, which sets it for good.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path


def run(source, settings, folder):
    assert process.start(source, settings, None, None) == 0
    (path,) = folder.glob("runs/*/policy.safetensors")
    return path


def export(*words):
    done = CliRunner().invoke(app, ["export", *words])
    assert done.exit_code == 0, done.output
    return re.match(r"models:/m-\w+", done.output)[0], done.output


def test_a_model_acts_as_the_policy_and_is_registered(here):
    path = run("adroit_pen_state", STATE, here)
    run_id, client = path.parent.name, MlflowClient()
    before = client.get_run(run_id).info
    address, said = export(run_id[:6], "--mlflow", "--register", "pen")
    assert "registered: models:/pen/1" in said and f'load_model("{address}")' in said
    after = client.get_run(run_id)
    assert (after.info.status, after.info.end_time) == (before.status, before.end_time)
    assert f"models:/{after.outputs.model_outputs[0].model_id}" == address
    policy = rrl.load_policy(path)
    observation, _ = policy.make_env().reset(seed=0)
    batch = {"state": np.stack([observation["state"], observation["state"] + 0.1])}
    ours = policy.act(batch)
    for name in (address, "models:/pen/1", f"runs:/{run_id}/policy"):
        theirs = mlflow.pyfunc.load_model(name).predict(batch)
        assert theirs.dtype == np.float32
        np.testing.assert_array_equal(theirs, ours)
    assert not np.array_equal(ours[0], ours[1])
    files = [p.name for p in here.glob("mlartifacts/**/*") if p.is_file() and "models" in p.parts]
    assert {"policy.safetensors", "mlflow_policy.py", "MLmodel"} <= set(files)
    assert not [name for name in files if name.endswith(".pkl")]
    model = mlflow.pyfunc.load_model(address)
    with pytest.raises(Exception, match="shape"):
        model.predict({"state": batch["state"][:, 1:]})
    _, said = export(run_id[:6], "--mlflow", "--best", "--register", "pen")
    assert "registered: models:/pen/2" in said and "after 0 updates" in said


def test_a_policy_that_sees_several_pictures_forgets_them_when_it_is_told_to(here):
    path = run("dmc_cartpole_swingup_rad", PICTURES, here)
    address, _ = export(str(path.parent), "--mlflow")
    model, policy = mlflow.pyfunc.load_model(address), rrl.load_policy(path)
    frames = policy.make_env().reset(seed=0)[0]["frames"]
    state = np.zeros((1, policy.facts["state_dim"] - policy.env.privileged), np.float32)
    seen = [{"state": state, "frames": np.roll(frames, 8 * n, axis=0)[None]} for n in range(3)]
    ours = [policy.act(each) for each in seen]
    theirs = [model.predict(each) for each in seen]
    np.testing.assert_array_equal(theirs, ours)
    remembering, fresh = model.predict(seen[0]), model.predict(seen[0], params={"reset": True})
    np.testing.assert_array_equal(fresh, ours[0])
    assert not np.array_equal(remembering, fresh)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--register", "pen", "--policy", "p.safetensors"), "--register is for --mlflow"),
        (("--policy", "p.safetensors", "--half", "--int8"), "--half or --int8, not both"),
        (("--mlflow", "--half"), "--half and --int8 are for --policy"),
        (("--mlflow", "--policy", "p.safetensors"), "say what to export"),
    ],
)
def test_what_does_not_go_together(words, said):
    done = CliRunner().invoke(app, ["export", "abcd", *words])
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
