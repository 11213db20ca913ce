"""Faults of joint sensors, tried in the same episodes: what is compared, what is kept, what is refused."""

import csv

import numpy as np
import pytest
from helpers.lines import Lines
from helpers.point import PlainPoint, registered
from helpers.small_policies import PIXELS, saved

from rrl.commands import policies as evaluation
from rrl.config import ginfile
from rrl.config.ginfile import ConfigError
from rrl.demos.replay import NoPolicy
from rrl.envs.adroit import Adroit
from rrl.envs.base import Faults
from rrl.envs.vector import WorkerVectorEnv
from rrl.evaluators import SensorFaults
from rrl.evaluators.base import Context
from rrl.evaluators.outcomes import Outcome
from rrl.registry import UserError, build
from rrl.rollout.data import Stream, episodes
from rrl.rollout.episodes import Collector

FEW = {"noise": (0.1,), "stuck": ("FFJ3",), "dead": ("WRJ1",), "delays": (2,)}
FAULTS = {
    "nominal": {},
    "gaussian noise 0.1": {"joint_noise": 0.1},
    "multiplicative noise 0.1": {"joint_noise": 0.1, "joint_noise_kind": "multiplicative"},
    "uniform noise 0.1": {"joint_noise": 0.1, "joint_noise_kind": "uniform"},
    "stuck FFJ3": {"stuck_joints": ("FFJ3",)},
    "dead WRJ1": {"dead_joints": ("WRJ1",)},
    "delay 2": {"joint_delay": 2},
}


def door(**settings):
    """Its dense reward tells every motion."""
    return Adroit(Adroit.Config(task="door", horizon=8, reward="dense", **settings))


class Reflex(NoPolicy):
    """Moves each joint by what it reads of it."""

    def act(self, observed, noise):
        return np.tanh(np.pad(3 * observed, ((0, 0), (4, 0))) + 0.2).astype(np.float32)


def collector_of(env, num_envs=2, workers=0):
    return Collector(WorkerVectorEnv(env, num_envs, None, workers))


def run(policy, env, folder, collector=None, **settings):
    """(numbers, lines that were said)"""
    said = []
    context = Context(
        collector=collector or collector_of(env),
        frames=None,
        encoder="State",
        seed=3,
        folder=folder,
        iteration=4,
        say=said.append,
        progress=lambda count: None,
        warm_started=lambda *_: [],
    )
    evaluator = SensorFaults(SensorFaults.Config(episodes=3, **FEW | settings))
    return dict(evaluator.run(policy, env, context)), said


def test_every_fault_is_tried_in_the_same_episodes(tmp_path):
    numbers, said = run(Reflex(28), door(), tmp_path)
    todo = episodes(3, seed=3, stream=Stream.EVAL)
    expected = {
        name: collector_of(door(**settings)).collect(Reflex(28), todo, keep=False) for name, settings in FAULTS.items()
    }
    stem = tmp_path / "pictures" / "000004_sensors"
    with stem.with_suffix(".csv").open() as file:
        lines = list(csv.DictReader(file))
    told = {name: [float(line["return"]) for line in lines if line["condition"] == name] for name in FAULTS}
    assert told == {name: rollout.returns().tolist() for name, rollout in expected.items()}
    assert len({tuple(returns) for returns in told.values()}) == len(FAULTS)  # each has another effect
    with stem.with_name(f"{stem.name}_drops.csv").open() as file:
        drops = list(csv.DictReader(file))
    assert [drop.pop("condition") for drop in drops] == list(FAULTS)
    outcomes = {name: Outcome.of(rollout, door().score) for name, rollout in expected.items()}
    for name, outcome in outcomes.items():
        start = f"sensors/{name.replace(' ', '_')}"
        assert numbers[f"{start}/success"] == outcome.mean
        assert (numbers[f"{start}/success_low"], numbers[f"{start}/success_high"]) == outcome.interval
        change = [numbers.get(f"{start}/change{end}") for end in ("", "_low", "_high")]
        assert tuple(change) == (outcome.minus(outcomes["nominal"]) if name != "nominal" else (None,) * 3)
        drop = {"episodes": 3, "success": outcome.mean, "success_low": outcome.interval[0]}
        drop |= {"success_high": outcome.interval[1], "change": change[0], "change_low": change[1]}
        drop |= {"change_high": change[2]}
        assert drops.pop(0) == {key: "" if value is None else str(value) for key, value in drop.items()}
    assert [line.split("  ")[0] for line in said[-2].splitlines()] == ["condition", *FAULTS]
    assert [line.split(":")[0] for line in said[:-2]] == list(FAULTS)
    assert stem.with_suffix(".png").stat().st_size > 1000 and b"</svg>" in stem.with_suffix(".svg").read_bytes()


def test_what_ignores_the_joints_does_the_same_under_all_faults(tmp_path):
    run(NoPolicy(28), door(), tmp_path)
    with (tmp_path / "pictures" / "000004_sensors.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["condition"] for line in lines} == set(FAULTS)
    assert len({(line["episode"], line["return"]) for line in lines}) == 3


def test_workers_change_no_number(tmp_path):
    only = {"noise": (0.1,), "noise_kinds": ("uniform noise",), "stuck": (), "dead": (), "delays": ()}
    here = run(Reflex(28), door(), tmp_path / "a", **only)
    there = run(Reflex(28), door(), tmp_path / "b", collector_of(door(), num_envs=3, workers=2), **only)
    assert here[0] == there[0]
    assert {line.split(":")[0] for line in here[1][:-2]} == {"nominal", "uniform noise 0.1"}


def test_by_default_there_is_a_joint_of_the_wrist_a_finger_and_the_thumb():
    conditions = SensorFaults.Config().conditions(door(joint_noise=0.01))
    assert len(conditions) == 2 + 3 * 3 + 3 + 3 + 3
    for fault in ("stuck", "dead"):
        assert [name for name in conditions if name.startswith(fault)] == [
            f"{fault} {joint}" for joint in ("WRJ1", "FFJ3", "THJ4")
        ]
    assert conditions["dead THJ4"] == door(joint_noise=0.01, dead_joints=("THJ4",)).config
    assert SensorFaults.Config().steps(door()) == (len(conditions) - 1) * 75 * 8  # without faults nothing is `clean`


def test_a_run_with_faults_of_its_own_is_tried_without_them_too(tmp_path):
    """What is called nominal elsewhere is called by these faults, wherever people read it."""
    faulty, trained = {"joint_noise": 0.05, "joint_noise_kind": "uniform", "joint_delay": 2}, "as trained"
    few = {"noise": (0.1,), "noise_kinds": ("gaussian noise",), "stuck": (), "dead": ("WRJ1",), "delays": ()}
    conditions = SensorFaults.Config(**few).conditions(door(**faulty))
    assert conditions == {
        "nominal": door(**faulty).config,
        "clean": door(joint_noise_kind="uniform").config,
        "gaussian noise 0.1": door(joint_noise=0.1, joint_delay=2).config,  # in the place of its own noise alone
        "dead WRJ1": door(**faulty, dead_joints=("WRJ1",)).config,
    }
    numbers, said = run(Reflex(28), door(**faulty), tmp_path, **few)
    label = f"{trained} (uniform noise 0.05, delay 2)"
    assert said[0].startswith(f"{label}: success ") and said[1].startswith("clean: success ")
    assert said[1].endswith(f"against {trained}")
    stem = tmp_path / "pictures" / "000004_sensors"
    assert "<!-- (uniform noise 0.05, delay 2) -->" in stem.with_suffix(".svg").read_text()
    with stem.with_suffix(".csv").open() as file:
        lines = list(csv.DictReader(file))
    assert list(dict.fromkeys(line["condition"] for line in lines)) == [label, *list(conditions)[1:]]
    todo = episodes(3, seed=3, stream=Stream.EVAL)
    clean = collector_of(door()).collect(Reflex(28), todo, keep=False)
    assert [float(line["return"]) for line in lines if line["condition"] == "clean"] == clean.returns().tolist()
    assert numbers["sensors/clean/success"] == numbers["sensors/nominal/success"] == 0.0


def test_another_environment_takes_part_by_its_own_settings(tmp_path, monkeypatch):
    """With what it has, and with its return where it has no success test."""
    monkeypatch.setattr(PlainPoint, "faults", lambda self: Faults(noise="gain"))
    with registered():
        env = PlainPoint(PlainPoint.Config())
        assert [*SensorFaults.Config(noise=(0.1, 0.2)).conditions(env)] == ["nominal", "noise 0.1", "noise 0.2"]
        with pytest.raises(UserError, match="toy_plain_point has no setting of stuck joints"):
            SensorFaults.Config(stuck=("elbow",)).conditions(env)
        numbers, _ = run(NoPolicy(1), env, tmp_path, stuck=None, dead=None)
    assert numbers["sensors/noise_0.1/change"] == 0.0  # it acts not at all
    assert numbers["sensors/noise_0.1/return"] == numbers["sensors/nominal/return"] < 0


# --- in runs and with `rrl eval` -----------------------------------------------------------------------


@pytest.fixture
def policy(tmp_path, monkeypatch):
    """The file of an untrained policy that acts on joints alone; it is evaluated in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluation, "cores", lambda: 0)
    path = tmp_path / "blind.safetensors"
    settings = "State.blind = True\nExperiment.num_envs = 2\nExperiment.threads = 1\n"
    saved(path, PIXELS.format(encoder="State", evaluators="") + settings, 24, 28)
    return path


class Stopped(Lines):
    """A screen whose user presses Ctrl-C after so many steps."""

    def __init__(self, steps):
        super().__init__()
        self.left = steps

    def advance(self, count=1):
        self.left -= count
        if self.left < 0:
            raise KeyboardInterrupt


def evaluated(path, display, **changed):
    settings = {**FEW, "episodes": 2, **changed}
    overrides = [f"SensorFaults.{name} = {value}" for name, value in settings.items()]
    return evaluation.evaluate(str(path), display, other="eval/sensors", overrides=overrides)


def test_finished_conditions_survive_a_crash(policy):
    with pytest.raises(KeyboardInterrupt):
        evaluated(policy, Stopped(3 * 12 + 5))  # in the fourth condition
    (folder,) = policy.parent.glob("runs/evaluations/*/sensors-*")
    pieces = folder.parent / "sensors" / "pieces"
    before = {path.name: path.stat().st_mtime_ns for path in pieces.iterdir()}
    assert len(before) == 3
    again = Lines()
    numbers = evaluated(policy, again)
    after = {path.name: path.stat().st_mtime_ns for path in pieces.iterdir()}
    assert len(after) == len(FAULTS) and after.items() >= before.items()
    assert again.lines[-1] == f"files: {folder.relative_to(policy.parent)}"
    assert evaluated(policy, Lines()) == numbers
    whole = policy.rename(policy.with_name("other.safetensors"))  # of which nothing is kept
    assert evaluated(whole, Lines()) == numbers


def test_a_setting_is_refused_before_anything_is_made(policy):
    for changed, message in (
        ({"stuck": ("ffj9",)}, r"no joint 'ffj9', only WRJ1, .*; did you mean 'FFJ3'\?"),
        ({"noise": (2.0,)}, r"joint_noise must be a number >= 0 and <= 1; got 2.0"),
        ({"noise_kinds": ("salt",)}, "no kind of noise 'salt', only 'gaussian noise', 'multiplicative"),
    ):
        with pytest.raises(UserError, match=message):
            evaluated(policy, Lines(), **changed)
    assert not (policy.parent / "runs").exists()


@pytest.mark.parametrize(
    ("source", "settings", "remedy"),
    [
        ("adroit_door_state", (), "with `Adroit.state = 'joints'`"),
        ("dmc_cartpole_swingup_state_sac", (), "leave it out"),
    ],
)
def test_there_must_be_joints_that_are_read(source, settings, remedy):
    with pytest.raises(ConfigError) as caught:
        ginfile.load(source, ["Experiment.evaluators = (@SensorFaults(),)", *settings])
    (problem,) = caught.value.problems
    assert "observes no joint angles, or has no settings of faults in them" in problem.message
    assert remedy in (problem.hint or "")


def test_the_shipped_file_leaves_out_what_tells_nothing():
    """Dead joints read as stuck ones where all begin at 0."""
    (config,) = ginfile.bound("eval/sensors", "evaluators")
    assert not [name for name in config.conditions(door()) if "dead" in name]
    env = build(Adroit.Config(task="door"))
    assert not env.make_one(None).reset(seed=0)[0]["state"].any()


def test_an_override_of_what_is_not_evaluated_is_a_mistake():
    with pytest.raises(ConfigError, match="nothing uses VisualDistractors"):
        ginfile.bound("eval/sensors", "evaluators", overrides=["VisualDistractors.episodes = 3"])
