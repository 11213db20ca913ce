"""`rrl export --onnx`: graphs that compute what torch does, and whom there is no graph of."""

import importlib.util
import re

import numpy as np
import pytest
import torch
from helpers.small_policies import PIXELS, saved
from plugins.encoder96 import Attention96
from torch.nn.functional import interpolate
from typer.testing import CliRunner

import rrl
from rrl.agents import SAC
from rrl.cli import app
from rrl.commands import onnx_export
from rrl.encoders import MobileNetV2
from rrl.encoders.base import Inference
from rrl.registry import UserError

onnx = pytest.importorskip("onnx", reason="pip install 'rrl[onnx]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'rrl[onnx]'")
pytest.importorskip("onnxscript", reason="pip install 'rrl[onnx]'")
SMALL = PIXELS.format(encoder="Attention96", evaluators="")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def export(source, out="x.onnx", *more):
    done = CliRunner().invoke(app, ["export", source, "--onnx", out, *more])
    return done.exit_code, done.output


def run(**inputs):
    session = onnxruntime.InferenceSession("x.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def pictures(count, side, channels):
    coarse = torch.rand(count, channels, 7, 7, generator=torch.Generator().manual_seed(count))
    fine = interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1) * 255
    return fine.byte().permute(0, 2, 3, 1).contiguous()


def near(ours, theirs):
    return np.linalg.norm(ours - theirs) < 1e-4 * np.linalg.norm(theirs)


def facts():
    return {entry.key: entry.value for entry in onnx.load("x.onnx").metadata_props}


def test_a_shipped_policy_acts_alike_elsewhere(here):
    code, said = export("adroit_pen_expert")
    assert code == 0 and "state (float32 [batch, 45])" in said, said
    state = np.random.default_rng(0).normal(size=(5, 45)).astype(np.float32)
    for rows in (state, state[:1]):
        assert near(run(state=rows), rrl.load_policy("adroit_pen_expert").act({"state": rows}))
    assert facts()["rrl"] == rrl.__version__ and facts()["agent"] == "BC"


def test_encoder_and_policy_are_one_graph(here):
    agent = saved(here / "policy.safetensors", SMALL, 24, 28)
    code, said = export("policy.safetensors")
    assert code == 0, said
    measured = float(re.search(r"onnxruntime is (\S+) away from torch", said)[1])
    assert measured < 1e-5
    frames, state = pictures(4, 96, 3).numpy(), np.random.default_rng(0).normal(size=(4, 24)).astype(np.float32)
    expected = rrl.load_policy("policy.safetensors").act({"frames": frames, "state": state})
    assert near(run(frames=frames, state=state), expected)
    assert near(run(frames=frames[:1], state=state[:1]), expected[:1])
    told = facts()
    assert told["weights"] == Attention96(Attention96.Config(), cameras=1).facts()["weights"]
    assert told["frames"].startswith("uint8 [batch, 96, 96, 3], RGB, cameras ")
    assert agent.mean_action(torch.zeros(1, 56)).shape == (1, 28)


def test_a_gin_file_gives_its_encoder_for_all_cameras(here):
    text = PIXELS.format(encoder="Attention96", evaluators="").replace("adroit_door", "adroit_relocate")
    (here / "relocate.gin").write_text(text)
    code, said = export("relocate.gin")
    assert code == 0 and "features (float32 [batch, 96])" in said, said
    frames = pictures(2, 96, 9)
    assert near(run(frames=frames.numpy()), Attention96(Attention96.Config(), cameras=3)(frames).numpy())


def test_a_part_gives_its_encoder_alone(here):
    (here / "own.gin").write_text("Experiment.encoder = @Attention96()\n")
    code, said = export("own.gin")
    assert code == 0 and "features (float32 [batch, 32])" in said and "cameras any" in said, said


def test_what_a_run_learned_is_exported_once_it_is_frozen(here, exported):
    from rrl.encoders.fixed import FixedEncoder

    file = exported / "cartpole_rad.safetensors"
    (here / "fixed.gin").write_text(
        PIXELS.format(encoder="FixedEncoder", evaluators="") + f"FixedEncoder.file = {str(file)!r}\n"
    )
    code, said = export("fixed.gin")
    assert code == 0 and "the latest 3 of each episode, oldest first" in said, said
    frames = pictures(2, 24, 9)
    expected = FixedEncoder(FixedEncoder.Config(file=str(file)), cameras=1)(frames)
    assert near(run(frames=frames.numpy()), expected.numpy())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("dmc_cartpole_swingup_rad.gin", "x.onnx"), "PixelCNN was trained with its agent"),
        (("adroit_pen_state.gin", "x.onnx"), "State sees no pictures: there is nothing to export"),
        (("adroit_pen_expert", "x.pb"), "an ONNX graph is an .onnx; got x.pb"),
        (("adroit_pen_expert", "x.onnx", "--half"), "--half and --int8 are for --policy"),
        (("adroit_pen_expert", "x.onnx", "--policy", "p.safetensors"), "say what to export"),
        (("adroit_pen_exprt", "x.onnx"), "adroit_pen_exprt is no policy file and no shipped policy"),
    ],
)
def test_what_has_no_graph_is_refused(here, words, told):
    code, said = export(*words)
    assert code == 2 and told in said
    assert not list(here.iterdir())


def test_an_action_of_several_observations_is_no_graph_of_one():
    class Plain(torch.nn.Module):
        dim, learns, config = 4, False, MobileNetV2.Config()
        feature_name = inference = staticmethod(lambda how: how)

    agent = SAC(SAC.Config(stack=3), encoder=Plain(), state_dim=2, action_dim=1, seed=0, inference=Inference())
    with pytest.raises(UserError, match="SAC chooses from the last 3 feature vectors, not from one"):
        agent.mean_action(torch.zeros(1, 6))
    agent = SAC(SAC.Config(), encoder=Plain(), state_dim=2, action_dim=1, seed=0, inference=Inference())
    row = torch.randn(5, 6)
    assert np.array_equal(agent.mean_action(row).detach().numpy(), agent.act(row.numpy(), None))


def test_a_missing_package_is_told_and_a_graph_that_differs_not_written(here, monkeypatch):
    monkeypatch.setattr(onnx_export, "CLOSE", -1.0)
    code, said = export("adroit_pen_expert")
    assert code == 2 and "nothing is written" in said
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, said = export("adroit_pen_expert")
    assert code == 2 and "needs the package onnx and onnxscript and onnxruntime: pip install 'rrl[onnx]'" in said
    assert not list(here.iterdir())
