"""Numbers out of their bounds are refused: in settings, in options, and where a machine is too small for them."""

import math
import re
import types
import typing

import pydantic
import pytest
from typer.testing import CliRunner

from rrl import cli, registry
from rrl.config import ginfile
from rrl.encoders.base import Inference
from rrl.machine.cores import cores
from rrl.registry import UserError
from rrl.run import fits
from rrl.run.experiment import Experiment
from rrl.run.placement import resolve

WRONG = {int: (-(2**64), 2**63, 2**64), float: (math.nan, math.inf, -math.inf, -1e300, 1e300)}
HUGE = str(2**64)


def numbers(annotation, wrapped=False):
    """(int or float, does it stand in a tuple?) for every number in a field's type."""
    parts = typing.get_args(annotation)
    if annotation in WRONG:
        yield annotation, wrapped
    elif typing.get_origin(annotation) is typing.Annotated:
        yield from numbers(parts[0], wrapped)
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType, tuple):
        for part in parts:
            yield from numbers(part, wrapped or typing.get_origin(annotation) is tuple)


def fields():
    for name in registry.names():
        for field, info in registry.get(name).Config.model_fields.items():
            for kind, wrapped in numbers(info.annotation):
                yield name, field, kind, wrapped


@pytest.mark.parametrize(("name", "field", "kind", "wrapped"), list(fields()))
def test_every_number_of_a_setting_has_an_end_on_both_sides(name, field, kind, wrapped):
    for value in WRONG[kind]:
        with pytest.raises(pydantic.ValidationError) as caught:
            registry.get(name).Config.model_validate({field: (value,) if wrapped else value})
        assert field in {str(error["loc"][0]) for error in caught.value.errors() if error["loc"]}, value


RENDER = ("demos", "render", "adroit_door_paper", "a.mp4")
MAKE = ("demos", "make", "adroit_door_expert", "a.npz")
QUICK = ("run", "quickstart", "--set")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*QUICK, f"Experiment.seed = {HUGE}"), f"a whole number >= 0 and <= {2**63 - 1}; got {HUGE}"),
        ((*QUICK, "Experiment.seed = -1"), "Experiment.seed must be a whole number >= 0"),
        ((*QUICK, "Experiment.threads = 3000"), "a whole number > 0 and <= 1024 or None; got 3000"),
        ((*QUICK, "Experiment.workers = 3000"), "a whole number >= 0 and <= 1024 or None; got 3000"),
        ((*QUICK, "Experiment.num_envs = 1000000"), "<= 4096; got 1000000"),
        ((*QUICK, "Adroit.horizon = 1000000000000"), "a whole number >= 1 and <= 1000000 or None; got 1000000000000"),
        ((*QUICK, "Adroit.joint_noise = 1.5"), "a number >= 0 and <= 1; got 1.5"),
        ((*QUICK, "DAPG.gamma = 1.01"), "<= 1; got 1.01"),
        ((*QUICK, "DAPG.policy_hidden = (1000000000,)"), "whole numbers > 0 and <= 16384"),
        ((*QUICK, "DAPG.min_log_std = -1000.0"), "a number >= -20 and <= 20; got -1000.0"),
        (("run", "dmc_cartpole_swingup_rad", "--set", f"RAD.replay = {10**15}"), f"<= 100000000; got {10**15}"),
        ((*RENDER, "--size", "481"), "take 482"),
        ((*RENDER, "--size", "100000"), "4096"),
        ((*RENDER, "--every", HUGE), "1000000"),
        ((*RENDER, "--episodes", "9" * 5000), "--episodes takes numbers up to"),
        ((*MAKE, "--seed", HUGE), str(2**63 - 1)),
        ((*MAKE, "--tries", "-1"), "--tries"),
        ((*MAKE, "--episodes", HUGE), "100000"),
        ((*MAKE, "--action-noise", "nan"), "--action-noise takes a number"),
        ((*MAKE, "--action-noise", "inf"), "10"),
        (("eval", "adroit_door_expert", "--seed", HUGE), str(2**63 - 1)),
        (("eval", "adroit_door_expert", "--episodes", HUGE), "100000"),
        (
            ("sweep", "adroit_door_state", "--seeds", f"1,{HUGE}"),
            f"takes numbers up to {2**63 - 1}; got {HUGE}",
        ),
        (("sweep", "adroit_door_state", "--jobs", "3000"), "1024"),
        (("sweep", "adroit_door_state", "--trials", HUGE), "100000"),
        (("reproduce", "fig4", "--task", "door", "--seeds", HUGE), "--seeds takes numbers up to"),
        (("run", "quickstart", "--budget", "9" * 400 + "h"), "--budget takes at most 87600h"),
        (("resume", "abc", "--iterations", HUGE), "1000000000"),
        (("ui", "--port", "0"), "--port"),
        (("bench", "rendering", "--seconds", "nan"), "--seconds takes a number"),
        (("bench", "rendering", "--seconds", "1e300"), "3600"),
        (("bench", "updates", "--repeats", HUGE), "1000"),
    ],
    ids=lambda value: " ".join(value)[:80] if isinstance(value, tuple) else "",
)
def test_a_number_out_of_its_bounds_is_refused_at_once(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.app, list(arguments))
    output = " ".join(result.output.replace("│", " ").split())
    assert result.exit_code == 2, output
    assert message in output
    assert "Traceback" not in output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [0, 2**32, 2**63 - 1])
def test_the_largest_seeds_are_taken(value):
    config = resolve(ginfile.load("adroit_door_state", [f"Experiment.seed = {value}", "Experiment.device = 'cpu'"]))
    assert ginfile.loads(ginfile.dumps(config)) == config
    encoder = registry.build(config.encoder, cameras=1)
    for clone in range(3):  # as evaluators count on from a run's seed
        registry.build(
            config.agent, encoder=encoder, state_dim=3, action_dim=2, seed=value + clone, inference=Inference()
        )


# --- what this machine has no room for ---------------------------------------------------------------

LONG = ("Experiment.iterations = 1_000_000_000", "Experiment.device = 'cpu'")


@pytest.mark.parametrize(
    ("file", "settings", "message"),
    [
        (
            "dmc_cartpole_swingup_rad",
            ("RAD.replay = 100_000_000",),
            r"RAD keeps 100,000,000 observations of 34,992 bytes: 3,500\.8 GB of memory or more",
        ),
        (
            "adroit_door_state",
            ("DAPG.trajectories = 1_000_000_000",),
            r"DAPG learns from 1,000,000,000 episodes of 200 steps at once, .*: 3,200\.0 GB of memory or more",
        ),
        (
            "adroit_door_state",
            ("SuccessRate.episodes = 100_000", "Adroit.horizon = 1_000_000", "DAPG.trajectories = 1"),
            r"SuccessRate keeps what happens in 100,000,000,000 steps: 1,600\.0 GB of memory or more",
        ),
    ],
)
def test_a_run_that_memory_cannot_hold_is_refused_with_both_numbers(tmp_path, monkeypatch, file, settings, message):
    monkeypatch.chdir(tmp_path)
    sets = [part for setting in (*LONG, *settings) for part in ("--set", setting)]
    result = CliRunner().invoke(cli.app, ["run", file, *sets])
    assert result.exit_code == 2, result.output
    assert re.search(message + r", and this machine has [\d.]+ [GM]B free", result.output), result.output
    assert not list(tmp_path.iterdir())


def test_what_a_short_run_fills_of_a_large_memory_is_what_counts():
    few = ("RAD.replay = 100_000_000", "Experiment.iterations = 2", "Experiment.device = 'cpu'")
    fits.check(Experiment(resolve(ginfile.load("dmc_cartpole_swingup_rad", few))))


def test_a_backend_that_cannot_do_the_precision_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = ("MobileNetV2.weights = None", "Experiment.precision = 'int8'", "Experiment.backend = 'torch'")
    sets = [part for setting in (*settings, "Experiment.device = 'cpu'") for part in ("--set", setting)]
    result = CliRunner().invoke(cli.app, ["run", "adroit_pen_mobilenetv2", *sets])
    assert result.exit_code == 2, result.output
    assert "precision 'int8' needs backend 'openvino'" in result.output
    assert not list(tmp_path.iterdir())


# --- threads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "settings", "expected"),
    [
        ({"OMP_NUM_THREADS": "3"}, (), 3),
        ({"OMP_NUM_THREADS": "4,2"}, (), 4),
        ({"OMP_NUM_THREADS": " 5 "}, (), 5),
        ({"OMP_NUM_THREADS": "3"}, ("Experiment.threads = 7",), 7),
        ({"OMP_NUM_THREADS": "6", "OMP_THREAD_LIMIT": "2"}, (), 2),
        ({"OMP_NUM_THREADS": "5000"}, (), 1024),
        ({}, (), None),
        ({"OMP_NUM_THREADS": ""}, (), None),
    ],
)
def test_the_variable_of_openmp_is_the_default_of_threads(monkeypatch, variables, settings, expected):
    for name in ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config = resolve(ginfile.load("adroit_door_state", ["Experiment.device = 'cpu'", *settings]))
    assert config.threads == (expected or cores())
    assert config.workers == cores()


@pytest.mark.parametrize("value", ["0", "abc", "-2", "1.5", "²", "2 4", ",2"])
@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "OMP_THREAD_LIMIT"])
def test_a_variable_that_is_no_number_of_threads_is_named(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    config = ginfile.load("adroit_door_state", ["Experiment.device = 'cpu'"])
    with pytest.raises(UserError, match=f"{name} must be a whole number > 0; got '{value}'"):
        resolve(config)
    assert resolve(config.model_copy(update={"threads": 2})).threads == 2, "what is not asked is not refused"
