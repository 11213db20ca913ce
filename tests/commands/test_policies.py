"""Policies that travel: `rrl eval`, `rrl export` and `rrl.load_policy`."""

import json
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.lines import Lines
from helpers.stores import prepared

import rrl
from rrl.commands import policies as evaluation
from rrl.encoders.base import Inference
from rrl.encoders.fixed import FixedEncoder
from rrl.registry import UserError
from rrl.run import policies, process
from rrl.store import checkpoint, results

TINY = (
    "Experiment.iterations = 1",
    "Experiment.num_envs = 4",
    "Experiment.workers = 1",
    "Experiment.evaluators = (@final/SuccessRate(),)",
    "final/SuccessRate.episodes = 5",
    "Adroit.horizon = 40",
    "DAPG.trajectories = 4",
    "DemoSet.episodes = 2",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished tiny run and the folder in which it was started."""
    folder = prepared(tmp_path_factory.mktemp("eval"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert process.start("adroit_pen_state", list(TINY), None, None) == 0
    (path,) = folder.glob("runs/*/run.json")
    return path.parent


def final(run):
    (row,) = [r.metrics for r in results.read(run).rows if "final/success" in r.metrics]
    return {k.removeprefix("final/"): v for k, v in row.items() if k.startswith("final/")}


def test_eval_repeats_the_runs_own_final_evaluation(run, tmp_path, monkeypatch):
    monkeypatch.chdir(run.parents[1])
    display = Lines()
    lines = display.lines
    found = evaluation.evaluate(run.name[:6], display, json_file=tmp_path / "out.json")
    assert found == final(run)
    assert json.loads((tmp_path / "out.json").read_text())["success"] == found["success"]
    assert "adroit_pen, State, DAPG, 1 updates" in lines[0]
    with pytest.raises(UserError, match="exists already"):
        evaluation.evaluate(run.name, display, json_file=tmp_path / "out.json")


def test_eval_repeats_the_last_evaluation_of_a_run_without_a_final_one(tmp_path, monkeypatch):
    monkeypatch.chdir(prepared(tmp_path))
    settings = ("iterations = 2", "log_every = 80", "eval_every = 80", "evaluators = (@EpisodeReturn(),)")
    settings = [*(f"Experiment.{each}" for each in settings), "EpisodeReturn.episodes = 2"]
    settings += ["DMControl.horizon = 15", "SAC.hidden = (8,)", "SAC.init_steps = 4", "SAC.batch = 4"]
    assert process.start("dmc_cartpole_swingup_state_sac", settings, None, None) == 0
    (path,) = tmp_path.glob("runs/*/run.json")
    rows = [row.metrics["eval/return"] for row in results.read(path.parent).rows]
    found = evaluation.evaluate(path.parent.name, Lines())
    assert (found["return"], found["episodes"]) == (rows[-1], 2) and found["return"] not in rows[:-1]


def test_a_file_alone_is_enough(run, tmp_path, monkeypatch):
    monkeypatch.chdir(run.parents[1])
    out = tmp_path / "elsewhere" / "pen.safetensors"
    display = Lines()
    lines = display.lines
    evaluation.export(run.name, out, display.line, best=False)
    with pytest.raises(UserError, match="exists already"):
        evaluation.export(run.name, out, display.line, best=False)
    monkeypatch.chdir(tmp_path)
    found = evaluation.evaluate(str(out), display)
    assert found == final(run)
    values = checkpoint.load_file(out)[1]
    assert values["run"] == run.name
    assert values["steps"] == results.read(run).steps
    assert values["final"]["final/success"] == found["success"]
    other = evaluation.evaluate(str(out), display, episodes=3, seed=5)
    assert other["episodes"] == other["episodes_sampled"] == 3
    with pytest.raises(UserError, match="no policy file and no shipped policy"):
        evaluation.evaluate("nothing", display)
    with pytest.raises(UserError, match="this is one file"):
        evaluation.evaluate(str(out), display, best=True)
    lines.clear()
    evaluation.evaluate(str(out), display, episodes=1, video=tmp_path / "a.mp4")
    assert lines[-1] == f"video: {tmp_path / 'a.mp4'}"
    assert (tmp_path / "a.mp4").stat().st_size > 1000


def test_the_best_policy_is_told_by_its_own_steps(run, tmp_path, monkeypatch):
    monkeypatch.chdir(run.parents[1])
    evaluation.export(run.name, tmp_path / "best.safetensors", print, best=True)
    values = checkpoint.load_file(tmp_path / "best.safetensors")[1]
    assert (values["iteration"], values["steps"]) == (0, 0)  # it collected before the only update
    (run.parents[1] / run.name[:5]).write_bytes(b"a file called like the run")
    evaluation.export(run.name[:5], tmp_path / "last.safetensors", print, best=False)
    assert checkpoint.load_file(tmp_path / "last.safetensors")[1]["run"] == run.name
    (run.parents[1] / run.name[:5]).unlink()


def test_half_precision_is_half_the_size_and_acts_nearly_the_same(run, tmp_path, monkeypatch):
    monkeypatch.chdir(run.parents[1])
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    for path in (whole, half):
        evaluation.export(run.name, path, print, best=True, rounding="half" if path == half else None)
    tensors = checkpoint.load_file(half)[0]
    assert tensors["mlp.0.weight"].dtype == torch.float16
    assert tensors["in_scale"].dtype == torch.float32
    weights = sum(t.numel() for k, t in tensors.items() if k.startswith("mlp."))
    assert whole.stat().st_size - half.stat().st_size == pytest.approx(2 * weights, abs=200)
    a, b = rrl.load_policy(whole), rrl.load_policy(half)
    env = a.make_env()
    obs, _ = env.reset(seed=1)
    assert np.allclose(a.act(obs), b.act(obs), atol=5e-3)
    assert not np.array_equal(a.act(obs), b.act(obs))


def test_int8_is_a_quarter_of_the_size_and_off_by_half_a_step_at_most(run, tmp_path, monkeypatch):
    monkeypatch.chdir(run.parents[1])
    whole, small = tmp_path / "whole.safetensors", tmp_path / "int8.safetensors"
    evaluation.export(run.name, whole, print, best=True)
    evaluation.export(run.name, small, print, best=True, rounding="int8")
    a, b = rrl.load_policy(whole), rrl.load_policy(small)
    state = a.agent.policy_state()
    matrices = [name for name, tensor in state.items() if name.endswith(".weight") and tensor.ndim == 2]
    weights = sum(state[name].numel() for name in matrices)
    assert whole.stat().st_size - small.stat().st_size > 2.5 * weights
    for name in matrices:
        exact, near = state[name], b.agent.policy_state()[name]
        step = exact.abs().amax(dim=1, keepdim=True) / 127
        assert ((exact - near).abs() <= 0.501 * step).all()
        assert not torch.equal(exact, near)
    obs, _ = a.make_env().reset(seed=1)
    assert np.allclose(a.act(obs), b.act(obs), atol=5e-2)


def test_scales_that_belong_to_no_matrix_are_refused(run, tmp_path, monkeypatch):
    monkeypatch.chdir(run.parents[1])
    evaluation.export(run.name, tmp_path / "a.safetensors", print, best=True, rounding="int8")
    tensors, values = checkpoint.load_file(tmp_path / "a.safetensors")
    name = "mlp.0.weight.int8_scale"
    for wrong in (tensors[name][:-1], tensors[name][:, None]):
        checkpoint.save_file(tmp_path / "b.safetensors", tensors | {name: wrong}, values)
        with pytest.raises(UserError, match=r"mlp\.0\.weight\.int8_scale is the scale of no matrix in int8"):
            rrl.load_policy(tmp_path / "b.safetensors")


def test_a_weight_beyond_half_precision_is_told(run, tmp_path, monkeypatch):
    copied = shutil.copytree(run, tmp_path / "runs" / run.name)
    tensors, values = checkpoint.load_file(copied / "policy.safetensors")
    tensors["mlp.0.weight"][0, 0] = 1e6
    checkpoint.save_file(copied / "policy.safetensors", tensors, values)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"mlp.0.weight holds inf \(1 of \d+ numbers\): export it without --half"):
        evaluation.export(run.name, tmp_path / "half.safetensors", print, best=False, rounding="half")
    evaluation.export(run.name, tmp_path / "whole.safetensors", print, best=False)


@pytest.fixture(scope="module")
def rad(tmp_path_factory):
    """A finished tiny run of RAD, whose encoder has learnt something, and its folder."""
    folder = prepared(tmp_path_factory.mktemp("rad"))
    settings = ["iterations = 2", "log_every = 80", "eval_every = 80", "evaluators = (@EpisodeReturn(),)"]
    settings = [f"Experiment.{each}" for each in settings]
    settings += ["EpisodeReturn.episodes = 1", "DMControl.horizon = 15", *SMALL_RAD]
    settings += [
        "PixelCNN.render = 24",
        "PixelCNN.canvas = 28",
        "PixelCNN.layers = 2",
        "PixelCNN.filters = 8",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert process.start("dmc_cartpole_swingup_rad", settings, None, None) == 0
    (path,) = folder.glob("runs/*/run.json")
    return path.parent


SMALL_RAD = ("RAD.hidden = (32,)", "RAD.init_steps = 4", "RAD.batch = 4", "RAD.replay = 100")


def test_half_precision_is_for_the_convolutions_too(rad, tmp_path, monkeypatch):
    monkeypatch.chdir(rad.parents[1])
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    for path in (whole, half):
        evaluation.export(rad.name, path, print, best=False, rounding="half" if path == half else None)
    tensors = checkpoint.load_file(half)[0]
    kinds = {t.dtype for name, t in tensors.items() if name != "seen"}
    assert kinds == {torch.float16} and tensors["seen"].dtype == torch.int64
    weights = sum(t.numel() for t in tensors.values())
    assert whole.stat().st_size - half.stat().st_size == pytest.approx(2 * weights, rel=0.01)
    a, b = rrl.load_policy(whole), rrl.load_policy(half)
    env = a.make_env()
    obs, _ = env.reset(seed=1)
    one = a.act(obs)
    assert np.allclose(one, b.act(obs), atol=5e-3)
    assert not np.array_equal(one, b.act(obs))


def test_a_policy_that_remembers_says_when_the_environments_change(rad):
    policy = rrl.load_policy(rad / "policy.safetensors")
    obs, _ = policy.make_env().reset(seed=0)
    one = policy.act(obs)
    many = {name: np.stack([each] * 2) for name, each in obs.items()}
    with pytest.raises(UserError, match=r"observations of 1 environments; got 2: call its reset\(\)"):
        policy.act(many)
    policy.reset()
    assert np.allclose(policy.act(many), one, atol=1e-6)


def test_an_exported_encoder_is_the_runs_and_trains_others(rad, tmp_path, monkeypatch):
    monkeypatch.chdir(rad.parents[1])
    out = tmp_path / "rad.safetensors"
    evaluation.export_encoder(rad.name, out, print)
    with pytest.raises(UserError, match="exists already"):
        evaluation.export_encoder(rad.name, out, print)
    encoder = FixedEncoder(FixedEncoder.Config(file=str(out)), cameras=1)
    # The critics' code of the centre view, computed anew from the run's checkpoint.
    saved = checkpoint.load_file(rad / "checkpoint.safetensors")[0]
    frames = torch.randint(256, (3, 24, 24, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x = torch.nn.functional.pad(frames.permute(0, 3, 1, 2).float() / 255, (2, 2, 2, 2))
    for i, stride in ((0, 2), (2, 1)):
        weight, bias = (saved[f"online.encoder.convolutions.{i}.{name}"] for name in ("weight", "bias"))
        x = torch.relu(torch.nn.functional.conv2d(x, weight, bias, stride))
    x = x.permute(0, 2, 3, 1).flatten(1) @ saved["online.head.0.weight"].T + saved["online.head.0.bias"]
    scale, shift = saved["online.head.1.weight"], saved["online.head.1.bias"]
    expected = torch.nn.functional.layer_norm(x, x.shape[1:], scale, shift)
    got = encoder.inference(Inference())(frames)
    assert torch.allclose(got, expected, atol=1e-5) and got.shape == (3, 50)
    begun = saved["start.0"]
    assert not torch.equal(saved["online.encoder.convolutions.0.weight"], begun)
    monkeypatch.chdir(prepared(tmp_path))
    settings = [
        "Experiment.iterations = 2",
        "Experiment.log_every = 80",
        "DMControl.horizon = 15",
        *SMALL_RAD,
    ]
    settings += [f"FixedEncoder.file = '{out}'", "Experiment.evaluators = ()"]
    assert process.start("dmc_cartpole_swingup_fixed_rad", settings, None, None) == 0
    (path,) = tmp_path.glob("runs/*/metrics.jsonl")
    assert "sac/critic_loss" in path.read_text()


def test_a_shipped_policy_acts_in_five_lines():
    policy = rrl.load_policy("adroit_door_expert")
    env = policy.make_env()
    obs, _ = env.reset(seed=0)
    up = 0
    for _ in range(200):
        obs, _, _, _, info = env.step(policy.act(obs))
        up += info["success"]
    assert up > 25
    env.close()
    assert policy.facts["action_dim"] == 28
    assert policy.config.env.task == "door"


def test_the_pages_lines_run():
    text = (Path(__file__).parents[2] / "docs" / "policies.md").read_text()
    (block,) = re.findall(r"^    import rrl\n(?:    .*\n)+", text, re.M)
    code = textwrap.dedent(block) + "print(obs['state'].shape)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(39,)"


def test_act_takes_one_observation_or_many_and_noise():
    policy = rrl.load_policy("adroit_pen_expert")
    env = policy.make_env()
    obs, _ = env.reset(seed=0)
    many = {"state": np.stack([obs["state"]] * 3)}
    one = policy.act(obs)
    assert one.shape == (24,)
    assert one.dtype == np.float32
    assert np.allclose(policy.act(many), one, atol=1e-5)
    noise = np.ones(24, np.float32)
    std = policy.agent.policy_state()["log_std"].exp().numpy()
    assert np.allclose(policy.act(obs, noise) - one, std, atol=1e-5)
    with pytest.raises(UserError, match="needs state; the observation has other"):
        policy.act({"other": np.zeros(3)})
    with pytest.raises(UserError, match=r"must have the shape \(3, 24\); got \(2, 24\)"):
        policy.act(many, np.zeros((2, 24)))
    with pytest.raises(UserError, match="has 45 numbers; got 3"):
        policy.act({"state": np.zeros(3)})


def test_what_is_shipped_is_small_and_loads():
    shipped = policies.shipped()
    assert {f"adroit_{task}_expert" for task in ("pen", "door", "hammer", "relocate")} <= set(shipped)
    for path in shipped.values():
        assert path.stat().st_size < 1e6
        policies.load(path)
