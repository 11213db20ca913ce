"""Projects in folders of any name, which are moved between a run and its resume; policies that travel alone."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers import point
from helpers.point_mass import PointMass
from helpers.stores import prepared
from mlflow import MlflowClient

from rrl import registry
from rrl.commands import policies as commands
from rrl.config import ginfile
from rrl.demos.sets import Demos
from rrl.encoders.base import Inference
from rrl.encoders.fixed import save_encoder
from rrl.encoders.pixel_cnn import PixelCNN
from rrl.machine.console import Display
from rrl.registry import UserError, build
from rrl.run import policies, process
from rrl.store import checkpoint, results, tracking

ODD = "a?b#c%20d é;e"
RUN = """
Experiment.env = @PlainPoint()
Experiment.encoder = @State()
Experiment.agent = @DAPG()
Experiment.demos = @DemoSet()
Experiment.iterations = 1
Experiment.num_envs = 2
Experiment.workers = 0
Experiment.threads = 1
DAPG.trajectories = 2
DAPG.bc_epochs = 1
DAPG.bc_batch = 2
DAPG.policy_hidden = (4,)
DAPG.value_batch = 4
DemoSet.source = '../demos/mine'
"""


@pytest.fixture(autouse=True)
def components(monkeypatch):
    registry.load_plugins()
    monkeypatch.setattr(registry, "_components", dict(registry._components))
    registry.register(PointMass)
    with point.registered():
        yield


def demonstrations():
    """Two episodes that do nothing, of the point on a line."""
    count, length = 2, point.Point.horizon
    states = np.zeros((count * (length + 1), 1))
    return Demos(
        lengths=np.full(count, length),
        actions=np.zeros((count * length, 1), np.float32),
        qpos=states.astype(np.float32),
        qvel=states.astype(np.float16),
        flags={},
        initial={"qpos": np.zeros((count, 1)), "qvel": np.zeros((count, 1))},
        facts={"env": "toy_plain_point"},
    )


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project in a folder of an odd name: demonstrations, a gin file, an MLflow store that the address leads to."""
    top = tmp_path / ODD
    demonstrations().save(top / "demos" / "mine.npz")
    (top / "gin").mkdir()
    (top / "gin" / "run.gin").write_text(RUN)
    prepared(top)
    monkeypatch.chdir(top)
    return top


def test_a_run_goes_on_from_any_folder_after_its_project_has_moved(project, monkeypatch, capsys):
    assert process.start("gin/run.gin", []) == 0
    (folder,) = (path.parent for path in project.glob("runs/*/run.json"))
    params = results.read(folder).params
    assert params["demos.source"] == "demos/mine.npz"
    assert "DemoSet.source = '../../demos/mine.npz'" in (folder / "config.gin").read_text()
    assert json.loads((folder / "tags.json").read_text())["demos"] == "mine.npz"
    assert sorted(path.name for path in project.parent.iterdir()) == [ODD]  # no mlflow.db or folder beside it
    data = MlflowClient(tracking.address(project / "mlflow.db")).get_run(folder.name).data
    assert data.params["demos.source"] == "demos/mine.npz"
    assert list(project.glob(f"mlartifacts/{folder.name}/artifacts/config.gin"))

    moved = shutil.move(project, project.with_name("moved"))
    monkeypatch.chdir("/")
    assert process.resume(f"{moved}/runs/{folder.name}/", iterations=2) == 0, capsys.readouterr().out
    run = results.read(moved / "runs" / folder.name)
    assert run.rows[-1].metrics["iteration"] == 2
    assert run.params == {**params, "iterations": "2"}
    info = MlflowClient(f"sqlite:///{moved}/mlflow.db").get_run(run.run_id).info
    assert info.status == "FINISHED"
    assert info.artifact_uri == f"file://{moved}/mlartifacts/{folder.name}/artifacts"  # a new process writes there

    (moved / "demos" / "mine.npz").unlink()
    commands.evaluate(str(run.folder), Display(), episodes=1)  # acting needs no demonstrations
    with pytest.raises(
        UserError, match=r"DemoSet\.source = '\.\./\.\./demos/mine\.npz': there is no file .*moved/demos"
    ):
        process.resume(str(run.folder), iterations=3)


# ---- policies that travel


def exported_encoder(path, more=0.0):
    encoder = PixelCNN(PixelCNN.Config(render=24, crop=20, filters=2), cameras=1)
    with torch.no_grad():
        next(encoder.parameters()).add_(more)
    save_encoder(path, encoder, encoder.head(torch.Generator()), {})
    return path


def made_run(top, encoder):
    """A run's folder with an untrained policy on an encoder from a file."""
    folder = top / "runs" / "abc123"
    folder.mkdir(parents=True)
    lines = ["Experiment.env = @PointMass()", "Experiment.encoder = @FixedEncoder()", "Experiment.agent = @NPG()"]
    lines += ["Experiment.iterations = 1", f"FixedEncoder.file = '{encoder}'", "NPG.policy_hidden = (4,)"]
    config = ginfile.loads("\n".join(lines))
    dims = {"state_dim": 4, "action_dim": 2}
    encoder = build(config.encoder, cameras=1)
    agent = build(config.agent, encoder=encoder, seed=0, inference=Inference(), **dims)
    facts = {**dims, "iteration": 0, **encoder.facts()}
    policies.save(folder / "policy.safetensors", agent, config, facts, results.project(folder))
    results.write_config(folder, config)
    started = {"run_id": "abc123", "name": "made", "source": "made", "started": "2025-01-01T00:00:00+00:00"}
    (folder / "run.json").write_text(json.dumps(started | {"uri": "sqlite:///mlflow.db", "versions": {}}))
    return folder


def acts(path):
    policy = policies.load_policy(path)
    obs, _ = policy.make_env().reset(seed=0)
    return policy.act(obs)


def test_a_policy_finds_its_encoder_after_a_move_or_beside_itself(tmp_path, monkeypatch):
    top = tmp_path / "project"
    folder = made_run(top, exported_encoder_in(top))
    before = acts(folder / "policy.safetensors")
    moved = shutil.move(top, tmp_path / "moved")
    alone = tmp_path / "alone" / "policy.safetensors"
    alone.parent.mkdir()
    monkeypatch.chdir("/")
    assert np.array_equal(acts(moved / "runs" / "abc123" / "policy.safetensors"), before)
    shutil.copy(moved / "runs" / "abc123" / "policy.safetensors", alone)
    with pytest.raises(UserError, match=r"FixedEncoder\.file = .*encoder\.safetensors.* put the file that .* beside"):
        policies.load_policy(alone)
    shutil.copy(moved / "encoders" / "encoder.safetensors", alone.parent)
    assert np.array_equal(acts(alone), before)
    exported_encoder(alone.with_name("encoder.safetensors"), more=0.1)
    with pytest.raises(UserError, match="trained with another encoder"):
        policies.load_policy(alone)


def exported_encoder_in(top):
    (top / "encoders").mkdir(parents=True)
    return exported_encoder(top / "encoders" / "encoder.safetensors")


def test_an_exported_policy_carries_its_encoder(tmp_path, monkeypatch):
    monkeypatch.setenv("RRL_CACHE", str(tmp_path / "cache"))
    top, lines = tmp_path / "project", []
    folder = made_run(top, exported_encoder_in(top))
    before = acts(folder / "policy.safetensors")
    out, half = tmp_path / "out" / "policy.safetensors", tmp_path / "out" / "half.safetensors"
    commands.export(str(folder), out, lines.append, best=False)
    commands.export(str(folder), half, lines.append, best=False, rounding="half")
    assert len(lines) == 2 and str(tmp_path) not in checkpoint.load_values(out)["config"]
    shutil.rmtree(top)
    assert np.array_equal(acts(out), before)
    assert np.allclose(acts(half), before, atol=1e-2)
    for path in (tmp_path / "cache").rglob("encoder.safetensors"):
        path.write_bytes(b"damaged")
    assert np.array_equal(acts(out), before)


@pytest.mark.parametrize("name", ["/planted", "../../../planted", "a/planted", ".."])
def test_a_strangers_policy_unpacks_nothing_outside_the_cache(tmp_path, monkeypatch, name):
    monkeypatch.setenv("RRL_CACHE", str(tmp_path / "cache"))
    text = f"{tmp_path}{name}" if name.startswith("/") else name
    bad = tmp_path / "bad.safetensors"
    values = {
        "config": f"FixedEncoder.file = '{text}'\nExperiment.encoder = @FixedEncoder()\n",
        "state_dim": 4,
        "action_dim": 2,
    }
    checkpoint.save_file(bad, {policies.FILE + text: torch.zeros(9, dtype=torch.uint8)}, values)
    with pytest.raises(UserError, match="put the file that the policy was trained with beside"):
        policies.load(bad)
    assert list(tmp_path.rglob("*")) == [bad]


def test_what_an_exported_policy_is_too_small_for_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(policies, "CARRIED", 100)
    lines = []
    encoder = exported_encoder(tmp_path / "encoder.safetensors")
    folder = made_run(tmp_path / "project", encoder)
    out = tmp_path / "out" / "policy.safetensors"
    commands.export(str(folder), out, lines.append, best=False)
    assert lines[0].startswith(f"note: it needs {encoder}, ")
    acts(out)
    encoder.rename(out.with_name("encoder.safetensors"))
    acts(out)
