"""The benchmarks measure what they say: ratios within a turn, real pipelines, nothing overwritten."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from rrl import registry
from rrl.bench import chart, compute, measure, pretrain, rendering, sampling
from rrl.bench.measure import Case, Sample
from rrl.cli import app
from rrl.encoders.frozen import FrozenEncoder
from rrl.envs.render import LOOKS
from rrl.registry import UserError


def speeds(*values):
    waiting = list(values)
    return lambda: Sample(waiting.pop(0), {"render": 3.0, "encode": 1.0})


def test_ratios_are_taken_within_a_turn():
    """A machine that slows down to a third between turns changes no ratio."""
    cases = [
        Case("plain", speeds(9.0, 3.0, 3.0)),
        Case("ours", speeds(36.0, 12.0, 15.0), {"look": "fast"}, "plain"),
    ]
    plain, ours = measure.interleave(cases, 3, "steps_per_second")
    assert ours.ratios == (4.0, 4.0, 5.0)
    assert plain.ratios == ()
    assert ours.seconds == {"render": 0.75, "encode": 0.25}
    row = ours.row()
    assert (row["steps_per_second"], row["ratio"], row["look"]) == (15.0, 4.0, "fast")
    assert row["repeats"] == [36.0, 12.0, 15.0]


def test_progress_has_a_total_and_a_time_left_once_all_cases_were_timed():
    said = []
    measure.interleave([Case("a", speeds(1.0, 1.0)), Case("b", speeds(1.0, 1.0))], 2, "steps_per_second", said.append)
    assert said == ["1 of 4: a", "2 of 4: b", "3 of 4: a, 0 s left", "4 of 4: b, 0 s left"]


@pytest.mark.parametrize("name", registry.names("encoder"))
def test_every_frozen_encoder_has_a_configuration_to_be_timed(name):
    if issubclass(registry.implementation(registry.get(name)), FrozenEncoder):
        assert sampling.encoder_config(name).frames()


def test_results_are_never_overwritten(tmp_path):
    (entry,) = measure.interleave([Case("a", speeds(2.0))], 1, "steps_per_second")
    path = tmp_path / "speed.json"
    measure.write(path, {"repeats": 1}, [entry])
    made = json.loads(path.read_text())
    assert made["entries"][0]["steps_per_second"] == 2.0
    assert made["machine"]["cores"] >= 1
    assert made["machine"]["versions"]["torch"] == torch.__version__.split("+")[0]
    with pytest.raises(UserError, match="exists"):
        measure.write(path, {}, [entry])
    done = CliRunner().invoke(app, ["bench", "updates", "--json", str(path)])
    assert done.exit_code == 2
    assert "exists" in done.output
    assert json.loads(path.read_text()) == made


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--look", "fancy"], "default, balanced, fast"),
        (["--task", "dor"], "pen, door"),
        (["--encoder", "State"], "MobileNetV2"),
        (["--env", "env/gym_pushr"], "env/gym_pusher"),
        (["--env", "env/gym_pusher", "--look", "fast"], "set in its file"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(arguments, text):
    done = CliRunner().invoke(app, ["bench", "sampling", *arguments])
    assert done.exit_code == 2
    assert text in done.output


@pytest.mark.slow
def test_pipelines_run_as_a_run_does():
    """Real processes: the reference of the original's shape, ours, and the ceilings."""
    chosen = [
        sampling.Pipeline("reference", "door", "MobileNetV2", "default"),
        sampling.Pipeline("run", "door", "MobileNetV2", "fast"),
        sampling.Pipeline("physics", "door", "none", "none"),
    ]
    reference, ours, physics = sampling.measure(chosen, 2, 0.3, lambda text: None)
    assert len(ours.rates) == 2
    assert ours.ratios == tuple(a / b for a, b in zip(ours.rates, reference.rates, strict=True))
    assert set(reference.seconds) == {"simulate", "render", "transform", "encode", "act"}
    assert set(ours.seconds) == {"simulate", "render", "encode", "act"}
    assert physics.rates[0] > ours.rates[0] > 0
    measure.show([reference, ours, physics], Console(), "test")


def test_an_environment_of_any_file_is_sampled():
    """As it is set there, without the reference, whose loop is Adroit's."""
    chosen = sampling.pipelines("door", ["MobileNetV2"], ["as set"], [("torch", "fp32")], "env/gym_pusher")
    assert [each.kind for each in chosen] == ["run", "render", "physics"]
    (ours,) = sampling.measure(chosen[:1], 1, 0.2, lambda text: None)
    assert ours.rates[0] > 0 and not any(ours.ratios)
    assert sampling.env_config("gym_pusher_state_sac").id == "Pusher-v5"


def test_the_reference_sees_what_ours_sees():
    """Its 256 px picture, cut to the centre 224, is our narrower 224 px picture up to rasterising."""
    import mujoco

    from rrl.envs import adroit_scene, gl
    from rrl.envs.base import FrameRequest

    loop_of = measure.reference("reference_sampling")
    gl.context()
    model = adroit_scene.model("door", "paper")
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = mujoco.Renderer(model, 256, 256)
    renderer.update_scene(data, camera="top")
    x = loop_of.TRANSFORM(Image.fromarray(renderer.render()))
    renderer.close()
    assert x.shape == (3, 224, 224)
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    theirs = ((x.permute(1, 2, 0) * std + mean) * 255).numpy()
    env = rendering.environment("door", "default").make_one(FrameRequest(224, 256))
    env.reset(seed=0)
    ours = env.show(data.qpos.copy(), data.qvel.copy())["frames"]
    # the door's place is drawn at the reset; the rest of the picture is the same
    assert np.median(np.abs(ours.astype(float) - theirs)) < 2


def test_looks_drift_from_the_default_one():
    rows = {row.look: row for row in rendering.drift("door", lambda x: x.mean((1, 2)).astype(np.float32), 3)}
    assert set(rows) == set(LOOKS)
    assert rows["default"].psnr == float("inf")
    assert rows["default"].features == 0.0
    assert 15 < rows["fast"].psnr < rows["balanced"].psnr < 60
    assert rows["fast"].features > rows["balanced"].features > 0


def mlp(*sizes):
    return sum(a * b for a, b in pairwise(sizes))


def test_multiply_adds_of_rrl_are_those_of_its_networks(tmp_path):
    """The encoder's published 0.30 G; the policy's layers; the update by hand."""
    file = tmp_path / "door.gin"
    file.write_text(
        "include 'adroit_door_mobilenetv2.gin'\nMobileNetV2.weights = None\nDAPG.trajectories = 2\n"
        "Experiment.precision = 'fp32'\nExperiment.num_envs = 2\nExperiment.backend = 'torch'\n"
    )
    (run,) = compute.load([str(file)])
    counts = compute.multiply_adds(run)
    assert counts["encode"] == pytest.approx(0.30e9, rel=0.01)
    policy, demos = mlp(1280 + 24, 256, 256, 28), 25 / 2
    assert counts["act"] == policy
    # The policy: forward and backward (not to the inputs) at the samples and at 12.5 times as many
    # demonstrations; ten Fisher products of a forward and a backward derivative; one pass afterwards.
    later = mlp(256, 256, 28)
    learn = (2 * policy + later) * (1 + demos) + 10 * 2 * (policy + later) + policy
    # The value: two epochs of all batches of 64 but the last; errors before and after, baselines.
    value = mlp(1304 + 4, 128, 128, 1)
    learn += 2 * 320 / 400 * (2 * value + mlp(128, 128, 1)) + 3 * value
    assert counts["learn"] == pytest.approx(learn, rel=0.01)


def test_multiply_adds_of_ferm_are_those_of_its_convolutions(tmp_path):
    file = tmp_path / "door.gin"
    file.write_text("include 'adroit_door_ferm.gin'\nFERM.updates_per_step = 2\nFERM.batch = 8\n")
    (run,) = compute.load([str(file)])
    counts = compute.multiply_adds(run)
    sides = (41, 39, 37, 35)
    trunk = [side**2 * 9 * 32 * inputs for side, inputs in zip(sides, (3, 32, 32, 32), strict=True)]
    head, actor, critic = 35**2 * 32 * 50, mlp(74, 1024, 1024, 56), 2 * mlp(74 + 28, 1024, 1024, 1)
    assert counts["encode"] == 0
    assert counts["act"] == sum(trunk) + head + actor
    # The critic's loss: the next pictures by actor and target, these forward and backward (pictures have no
    # gradient); every second time the actor's, where the convolutions only pass forward.
    forward = sum(trunk)
    backward = 2 * forward - trunk[0]
    critics = 3 * forward + backward + (1 + 1 + 3) * head + actor + 4 * critic
    actors = forward + (3 + 1) * head + 3 * actor + 2 * critic
    assert counts["learn"] == pytest.approx(2 * 8 * (critics + actors / 2), rel=0.05)


def test_agents_that_learn_nothing_online_are_refused():
    done = CliRunner().invoke(app, ["bench", "compute", "results/bc_door_state"])
    assert done.exit_code == 2
    assert "BC is none" in done.output


def test_computation_counts_environment_steps(tmp_path):
    """Two environments, an action repeat of 8, stacks of three rows, an actor that learns at every third
    update: all per environment step."""
    file, out = tmp_path / "cartpole.gin", tmp_path / "out.json"
    file.write_text(
        "include 'dmc_cartpole_swingup_state_sac.gin'\nExperiment.num_envs = 2\nSAC.hidden = (32, 32)\n"
        "SAC.batch = 16\nSAC.stack = 3\nSAC.actor_every = 3\nSAC.target_every = 1\nSAC.updates_per_step = 2\n"
    )
    done = CliRunner().invoke(app, ["bench", "compute", str(file), "--repeats", "1", "--json", str(out)])
    assert done.exit_code == 0, done.output
    assert "runs: 1, turns: 1; about " in done.output
    (entry,) = json.loads(out.read_text())["entries"]
    actor, critic = mlp(15, 32, 32, 2), 2 * mlp(16, 32, 32, 1)
    assert entry["act_multiply_adds"] == actor / 8
    # Forward and backward of both networks, but not to the inputs (of the critics' action, yes).
    critics = actor + critic + 3 * critic - 2 * 16 * 32
    actors = 3 * actor - 15 * 32 + 2 * critic
    assert entry["learn_multiply_adds"] == 2 * 16 * (critics + actors / 3) / 8
    assert f"{entry['multiply_adds'] / 1e6:,.2f}" in done.output


def test_the_paper_figure_is_projected_from_unit_costs_of_one_call(tmp_path, monkeypatch):
    """Real methods, but few samples and small batches; FERM's augmentation by itself, the VAE's pretraining in it."""
    few, batch = ("DAPG.trajectories = 2", "Experiment.backend = 'torch'"), 8
    methods = {
        "RRL(ResNet34)": ("ResNet.depth = 18",),  # quicker to make; names alone decide what is told
        "RRL(VAE)": (),
        "FERM": (f"FERM.batch = {batch}",),
    }
    chosen = {}
    for name, settings in methods.items():
        method = compute.SHIPPED[name]
        more = settings if name == "FERM" else (*settings, *few)
        lessons = (*method.pretraining, f"Pretraining.batch = {batch}") if method.pretraining else ()
        chosen[name] = replace(method, settings=(*method.settings, *more), pretraining=lessons)
    monkeypatch.setattr(compute, "SHIPPED", chosen)
    picture, out = tmp_path / "figures" / "cost.png", tmp_path / "out.json"
    words = ["bench", "compute", "--repeats", "1", "--chart", str(picture), "--json", str(out)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    entries = {entry["name"]: entry for entry in json.loads(out.read_text())["entries"]}
    assert all((e["threads"], e["environments"], e["precision"]) == (1, 1, "fp32") for e in entries.values())
    split = {name: entry["split"] for name, entry in entries.items()}
    assert set(split["FERM"]) == {"encode", "act", "learn", "augment"}
    assert set(split["RRL(VAE)"]) == {"encode", "act", "learn", "pretrain"}
    ferm, vae, resnet = (entries[name] for name in ("FERM", "RRL(VAE)", "RRL(ResNet34)"))
    ratio = resnet["steps_per_second"] / ferm["steps_per_second"]
    assert f"FERM against RRL(ResNet34): {ratio:.1f} times the time" in said and "the paper says about 5 times" in said
    pictures = 4 * (250_000 - 5_000) // batch * batch  # of the shipped file, but for those held out
    per_picture = vae["pretrain_multiply_adds"] * compute.STEPS / (10 * pictures)
    learner = compute.teacher(1, batch, "fp32")
    assert per_picture == pytest.approx(learner.multiply_adds() / batch)
    assert Image.open(picture).width > 1_000 and "</svg>" in picture.with_suffix(".svg").read_text()
    again = CliRunner().invoke(app, ["bench", "compute", "--chart", str(picture.with_suffix(""))])
    assert again.exit_code == 2 and "exists already" in again.output and "1 of" not in again.output


def test_a_projection_is_hours_of_the_paper_steps():
    facts = {f"{part}_multiply_adds": 1e6 for part in compute.COUNTS} | {"multiply_adds": 4e6}
    cheap = measure.Entry("RRL(ResNet34)", compute.UNIT, facts, (40.0, 50.0), (), "", {"encode": 0.9, "learn": 0.1})
    dear = replace(cheap, name="FERM", rates=(4.0, 10.0), facts=facts | {"multiply_adds": 2e7})
    one, _ = chart.costs([cheap, dear])
    assert one.hours == pytest.approx({"encode": 0.9 * 4e6 / 45 / 3600, "learn": 0.1 * 4e6 / 45 / 3600})
    assert one.multiply_adds["learn"] == 4e12
    (text,) = chart.ratios([cheap, dear])
    assert "7.5 times the time (quartiles 6.2 to 8.8), 5.0 times the multiply-adds" in text
    assert text.startswith("FERM against RRL(ResNet34): ") and text.endswith("; the paper says about 5 times")
    (changed,) = chart.ratios([cheap, dear], ["ResNet.depth = 18"])
    assert changed.endswith("the paper says about 5 times, not with ResNet.depth = 18")
    assert chart.ratios([cheap]) == []


def test_runs_of_ones_own_are_compared_with_the_first_and_not_with_the_paper(capsys):
    """In the table of rates too, where its ratios have a name."""
    turns = {"mine": (40.0, 50.0), "other": (10.0, 25.0), "third": (80.0, 50.0)}
    cases = [Case(name, speeds(*rates), {"multiply_adds": 2.0}, "mine") for name, rates in turns.items()]
    entries = measure.interleave([replace(cases[0], against=""), *cases[1:]], 2, compute.UNIT)
    other, third = chart.ratios(entries)
    assert other == "other against mine: 3.0 times the time (quartiles 2.5 to 3.5), 1.0 times the multiply-adds"
    assert third.startswith("third against mine: 0.8 times the time")
    measure.show(entries, Console(width=130), "test")
    assert "times mine's speed (quartiles)" in capsys.readouterr().out
    two = replace(entries[2], against="other")
    measure.show([*entries[:2], two], Console(width=130), "test")
    said = capsys.readouterr().out
    assert "of other" in said and "of mine" in said


def test_training_a_vae_is_timed_against_a_bare_loop_of_the_same_precision():
    cases = pretrain.cases(batches=2, batch=8)
    entries = {entry.name: entry for entry in measure.interleave(cases, 1, pretrain.UNIT)}
    assert {"bare loop fp32", "pretrain fp32"} <= entries.keys()
    for name in entries:
        plain = name.replace("pretrain", "bare loop")
        assert entries[name].against == (plain if name != plain else "") and entries[name].rates[0] > 0
        assert entries[name].facts["precision"] in name
