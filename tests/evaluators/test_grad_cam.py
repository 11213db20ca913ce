"""Grad-CAM: maps against their closed form, whom they are refused to, and sheets as pictures."""

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.lines import Lines
from helpers.small_policies import PIXELS, saved
from PIL import Image
from plugins.encoder96 import Attention96
from torch.nn.functional import interpolate

from rrl.cli import app
from rrl.commands import looking
from rrl.config import ginfile
from rrl.demos.replay import NoPolicy
from rrl.encoders import ResNet
from rrl.envs.vector import WorkerVectorEnv
from rrl.evaluators import grad_cam, heat
from rrl.evaluators.base import Context
from rrl.registry import UserError, build
from rrl.rollout.episodes import Collector
from rrl.run import fits

pytest.importorskip("pytorch_grad_cam", reason="pip install 'rrl[look]'")
SETTINGS = "ResNet.depth = 18\nResNet.weights = None\n"
RUN = PIXELS.format(encoder="ResNet", evaluators="") + SETTINGS
JUDGED = PIXELS.format(encoder="ResNet", evaluators="@GradCAM(),") + SETTINGS


@pytest.fixture(scope="module")
def encoder():
    return ResNet(ResNet.Config(depth=18, weights=None), cameras=2)


@pytest.fixture(scope="module")
def shots():
    """Two moments of two cameras: smooth random pictures."""
    coarse = torch.rand(2, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    frames = (interpolate(coarse, (224, 224), mode="bicubic").clamp(0, 1) * 255).byte()
    return grad_cam.Shots(frames.permute(0, 2, 3, 1).numpy(), np.ones((2, 3), np.float32), [1, 2])


def channels(encoder, frames):
    """The last layer's maps, [K * cameras, C, 7, 7], and the features that are their means."""
    found = []
    with torch.no_grad():
        handle = encoder.network.layer4.register_forward_hook(lambda *given: found.append(given[-1]))
        features = encoder(torch.from_numpy(frames))
        handle.remove()
    return found[0], features


def stretched(weights, maps):
    """relu(sum of weights * maps) in the pictures' size, each from 0 to 1."""
    summed = torch.einsum("nc,nchw->nhw", weights, maps).clamp(min=0)
    large = interpolate(summed[:, None], (224, 224), mode="bilinear")[:, 0]
    large = large - large.amin((1, 2), keepdim=True)
    return (large / large.amax((1, 2), keepdim=True)).view(2, 2, 224, 224).numpy()


def test_a_map_of_the_features_is_the_closed_form(encoder, shots):
    """Features f are means of the last channels, so d|f| / d(channel) is f / |f|, spread evenly."""
    maps, features = channels(encoder, shots.frames)
    found = heat.heat(encoder, shots.frames, shots.state)
    assert found.shape == (2, 2, 224, 224)
    np.testing.assert_allclose(found, stretched(features.view(4, 512), maps), atol=1e-4)


def test_a_map_of_the_action_is_the_closed_form(encoder, shots):
    """Of a = W [f, s]: d|a| / df = W^T a / |a|; another map than that of the features."""
    matrix = torch.randn(5, 1027, generator=torch.Generator().manual_seed(1)) / 30
    maps, features = channels(encoder, shots.frames)
    rows = torch.cat((features, torch.from_numpy(shots.state)), 1)
    expected = stretched((rows @ matrix.T @ matrix)[:, :1024].reshape(4, 512), maps)
    found = heat.heat(encoder, shots.frames, shots.state, lambda row: row @ matrix.T)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(found - heat.heat(encoder, shots.frames, shots.state)).max() > 0.1
    assert not encoder.learns and all(p.grad is None for p in encoder.parameters())


def test_tokens_are_no_maps(shots):
    frames = shots._replace(frames=shots.frames[:, :96, :96, :3].copy())
    with pytest.raises(UserError, match=r"network of convolutions, .*: its last layers give \[1, 36, 32\]"):
        heat.heat(Attention96(Attention96.Config(), cameras=1), frames.frames, frames.state)


@pytest.mark.parametrize("encoder", ["State", "PixelCNN"])
def test_a_run_without_such_an_encoder_is_refused(encoder):
    text = f"Experiment.encoder = @{encoder}()\nExperiment.evaluators = (@GradCAM(),)\nState.blind = True"
    text = f"include 'method/rad.gin'\ninclude 'env/dmc_cartpole_swingup.gin'\n{text}"
    with pytest.raises(ginfile.ConfigError, match=f"sees each camera's picture by itself .*not {encoder}"):
        ginfile.loads(text, "x.gin")
    assert ginfile.loads(JUDGED, "x.gin").evaluators[0].when == "end"


def test_the_evaluator_writes_a_sheet(tmp_path):
    config = ginfile.loads(JUDGED + "GradCAM.moments = 3", "x.gin")
    env, (evaluator,) = build(config.env), config.evaluators
    said, made = [], []
    context = SimpleNamespace(
        collector=SimpleNamespace(envs=SimpleNamespace(workers=0)),
        network=build(config.encoder, cameras=1),
        frames=config.encoder.frames(),
        encoder="ResNet18 (UNTRAINED)",
        seed=0,
        folder=tmp_path,
        iteration=7,
        say=said.append,
        progress=made.append,
    )
    assert dict(build(evaluator).run(NoPolicy(28), env, context)) == {"grad_cam_moments": 3}
    assert said == [f"Grad-CAM: {tmp_path}/pictures/000007_grad_cam.png"] and sum(made) == evaluator.steps(env) == 6
    picture = Image.open(tmp_path / "pictures" / "000007_grad_cam.png")
    assert picture.size == (2 * 224, 3 * 224 + 3 * grad_cam.CAPTION)
    pixels = np.asarray(picture)[3 * grad_cam.CAPTION :]
    assert np.abs(pixels[:, :224].astype(int) - pixels[:, 224:]).mean() > 20
    no_action = evaluator.model_copy(update={"of": "action"})
    assert dict(build(no_action).run(NoPolicy(28), env, context)) == {}
    assert said[-1] == "no Grad-CAM: NoPolicy gives no mean action as a function of features"
    assert {"network", *vars(context)} <= Context.__dataclass_fields__.keys()


def test_a_missing_package_is_told_before_anything(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (evaluator,) = ginfile.loads(JUDGED, "x.gin").evaluators
    config = SimpleNamespace(precision="fp32", evaluators=(evaluator,), trackers=())
    experiment = SimpleNamespace(config=config, frames=None)
    with pytest.raises(UserError, match=r"pip install 'rrl\[look\]'"):
        fits.check(experiment)
    with pytest.raises(UserError, match=r"pip install 'rrl\[look\]'"):
        looking.show(["adroit_door_mobilenetv2"], [], tmp_path / "x.png", Lines(), count=2, of="features", side=64)


def test_moments_are_spread_over_an_episode():
    config = ginfile.loads(RUN, "x.gin")
    envs = WorkerVectorEnv(build(config.env), 1, config.encoder.frames(), 0)
    (episode,) = grad_cam.episodes(1, seed=0, stream=grad_cam.Stream.VIDEO)
    try:
        assert grad_cam.taken(Collector(envs), NoPolicy(28), episode, 3).t == [1, 3, 6]
        assert grad_cam.taken(Collector(envs), NoPolicy(28), episode, 50).t == [1, 2, 3, 4, 5, 6]
    finally:
        envs.close()


# ---- rrl look


def look(cli_runner, *words):
    return cli_runner.invoke(app, ["look", *words])


def test_files_and_policies_stand_side_by_side(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    monkeypatch.chdir(tmp_path)
    (tmp_path / "door.gin").write_text(RUN)
    saved(tmp_path / "policy.safetensors", RUN, 24, 28)
    done = look(CliRunner(), "door.gin", "policy.safetensors", "--frames", "2", "--size", "64", "--out", "two.png")
    assert done.exit_code == 0, done.output
    assert "adroit_door, ResNet18 (UNTRAINED), random actions; steps 1 to 6" in done.output
    assert "adroit_door, ResNet18 (UNTRAINED), NPG; steps 1 to 6" in done.output
    assert Image.open("two.png").size == (4 * 64, 2 * 64 + 3 * grad_cam.CAPTION)
    done = look(CliRunner(), "policy.safetensors", "--of", "action", "--frames", "2", "--size", "64", "--out", "a.png")
    assert done.exit_code == 0, done.output
    features, action = (
        np.asarray(Image.open(name))[60:, start : start + 64] for name, start in (("two.png", 192), ("a.png", 64))
    )
    assert np.abs(features.astype(int) - action).mean() > 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("door.gin", "--of", "action"), "door.gin is a gin file, which has no policy yet"),
        (("door.gin", "--of", "pixels"), "--of is features or action; got 'pixels'"),
        (("door.gin", "--out", "sheet.jpg"), "a sheet is a .png; got sheet.jpg"),
        (("adroit_pen_expert",), "not State"),
        (("adroit_pen_expert", "--set", "DAPG.lam_0 = 1"), "--set is for gin files; adroit_pen_expert is a policy"),
        (("env/adroit_fast",), "env/adroit_fast is a part of runs, and `rrl look` draws whole ones side by side"),
        (("gone",), "gone is no policy file and no shipped policy"),
        (("adroit_dor_resnet34",), "as a gin file: did you mean adroit_door_resnet34"),
    ],
)
def test_what_there_is_nothing_to_see_of_is_refused(words, told, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    monkeypatch.chdir(tmp_path)
    (tmp_path / "door.gin").write_text(RUN)
    done = look(CliRunner(), *words)
    assert done.exit_code == 2 and told in done.output
    assert not list(tmp_path.glob("*.png"))
