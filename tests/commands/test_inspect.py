"""`rrl inspect`: every kind of environment says what there is to choose from, before anything is run."""

import re
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from helpers.point_mass import PointMass, PointMassSim
from PIL import Image
from typer.testing import CliRunner

from rrl import cli, registry
from rrl.envs import Gymnasium, about
from rrl.envs.base import FrameRequest

TOY = "helpers.gym_tasks:helpers/Toy-v0"
GIN = "include 'encoder/mobilenetv2.gin'\ninclude 'method/rrl_sac.gin'\n"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("toy.gin").write_text(f"{GIN}Experiment.env = @Gymnasium()\nGymnasium.id = '{TOY}'\n")
    Path("point.gin").write_text(f"{GIN}Experiment.env = @PointMass()\n")
    registry.load_plugins()
    monkeypatch.setattr(registry, "_components", dict(registry._components))
    registry.register(PointMass)


def inspect(*arguments, exit_code=0):
    """What it prints, each entry on one line."""
    done = CliRunner().invoke(cli.app, ["inspect", *arguments])
    assert done.exit_code == exit_code and "Traceback" not in done.output, done.output
    assert max(map(len, done.stdout.splitlines()), default=0) <= 100
    return done.output.replace("\n  ", " ")


def test_an_environment_of_gymnasium(here):
    said = inspect("toy.gin", "--set", "Gymnasium.success = 'solved'")
    for line in (
        "gymnasium_helpers_Toy-v0: episodes of 12 steps, judged by `success` in more than 0 steps",
        "actions: 1 number in [-1, 1]",
        "state vector: 3 numbers",
        "pictures: 224 x 224 pixels (the centre of 256), render",
        "actions in the environment: -2 to 6",
        "observation: goal 1 number (state 0 to 0), picture 20 x 30 x 3 (not in the state), "
        "point 2 numbers (state 1 to 2)",
        "info after a step: solved False",
    ):
        assert f"{line}\n" in said
    assert re.search(r"actions \(seed 0\): 12 steps, cut at the limit, return -\d+\.\d, success in \d+ steps\n", said)
    one = inspect("toy.gin", "--set", "Gymnasium.state = 'point'")
    assert "goal 1 number (not in the state)" in one and "point 2 numbers (state 0 to 1)" in one


@pytest.mark.parametrize("state", ["all", "none", "point"])
def test_places_are_those_of_the_state_vector(state):
    env = Gymnasium(Gymnasium.Config(id=TOY, state=state)).make_one(None)
    seen = env.reset(seed=4)[0]["state"]
    texts, vector = about.of_observation(env._env.unwrapped.observed(), state)
    np.testing.assert_array_equal(vector, seen)
    assert sum("not in the state" in text for text in texts) == {"all": 1, "none": 3, "point": 2}[state]


def test_joints_are_found_in_the_state_vector():
    """Pusher's observation begins with the seven joints' angles; what stands in two places is left open."""
    sim = Gymnasium(Gymnasium.Config(id="Pusher-v5")).make_one(None)
    (joints,) = (texts for title, texts in sim.about().items() if title.startswith("joints"))
    assert [joint.partition(" ")[2] for joint in joints] == [*map(str, range(7)), "", "", "", ""]
    model, data = sim._scene.model, sim._scene.data
    twice = about.of_model(model, data, np.repeat(data.qpos[:1].astype(np.float32), 2))
    assert not any(" " in joint for joint in twice["joints, with their places in the state vector"])


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "adroit_door_mobilenetv2",
            (
                "cameras in the model: fixed, vil_camera, top\n",
                "success_rrl in 0 steps",
                "thdistal, frame, door, latch, ",
            ),
        ),
        (
            "dmc_cartpole_swingup_rad",
            ("pictures: 108 x 108 pixels, 3 at a time, camera 0\n", "slider", "fixed, lookat"),
        ),
        (
            "mjrl_reacher_state",
            (
                "pictures: none\n",
                "shoulder_pan 0,",
                "in the model: front\n",
                "sites that can be seen: world, shoulder_pan, ",
            ),
        ),
    ],
)
def test_rrls_own_environments(name, lines):
    said = inspect(name)
    assert re.search(r"actions in the environment: -?\d", said)
    for line in lines:
        assert line in said


def test_an_environment_that_can_little():
    said = inspect("point.gin")
    assert "pointmass: episodes of 30 steps, judged by `success` in more than 5 steps\n" in said
    assert "it cannot: be filmed for people (no `render`), " in said
    assert "cameras in the model" not in said


def test_the_first_picture_is_the_encoders():
    said = inspect("toy.gin", "--picture", "new/first.png", "--set", "Experiment.seed = 3")
    assert said.endswith("the first picture: new/first.png\n")
    env = Gymnasium(Gymnasium.Config(id=TOY)).make_one(FrameRequest(224, 256))
    np.testing.assert_array_equal(Image.open("new/first.png"), env.reset(seed=3)[0]["frames"])


def test_cameras_stand_side_by_side():
    cameras = "Gymnasium.cameras = ('vil_camera', 'fixed')"
    door = "Gymnasium.id = 'gymnasium_robotics:AdroitHandDoor-v1'"
    inspect("toy.gin", "--picture", "two.png", "--set", cameras, "--set", door, "--set", "Gymnasium.look = 'fast'")
    assert Image.open("two.png").size == (448, 224)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("adroit_door_state", "--picture", "a.png"), "State sees no pictures: leave --picture away"),
        (("toy.gin", "--picture", "a.jpg"), "a picture is a .png; got a.jpg"),
        (("toy.gin", "--picture", "toy.gin/a.png"), "toy.gin is no folder"),
        (("sweeps/fig4_door",), "is a sweep, not a run"),
        (("toy.gin", "--set", "Gymnasium.id = 'CartPole-v1'"), "CartPole-v1 has actions Discrete(2)"),
        (("toy.gin", "--set", "Gymnasium.state = 'pint'"), "it has goal, picture, point"),
    ],
)
def test_what_can_not_be_inspected_is_refused(arguments, told):
    assert told in inspect(*arguments, exit_code=2)
    assert {path.name for path in Path().iterdir()} == {"toy.gin", "point.gin"}


def test_a_task_without_success_is_inspected_with_a_method_that_counts_it():
    Path("npg.gin").write_text("include 'toy.gin'\ninclude 'method/npg.gin'\n")
    assert "judged by the return" in inspect("npg.gin")


class Endless(PointMassSim):
    """Forgets to end."""

    def step(self, action):
        seen, reward, _, _, info = super().step(action)
        return seen, reward, False, False, info


class Flagless(PointMassSim):
    """Has a name of its own for success."""

    def step(self, action):
        *others, _ = super().step(action)
        return *others, {"is_success": True}


class Longer(PointMassSim):
    """Observes more than it says."""

    def __init__(self, radius, frames):
        super().__init__(radius, frames)
        self.observation_space = gymnasium.spaces.Dict(state=gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32))


@pytest.mark.parametrize(
    ("sim", "told"),
    [
        (Endless, "step 30: the episode must be truncated here: its horizon is 30"),
        (Flagless, "step 1: the info must hold the goal flag 'success'; it has is_success"),
        (Longer, "step 1: the state must be float32 (3,), as in `observation_space`; it is float32 (4,)"),
    ],
)
def test_a_broken_promise_is_told(monkeypatch, sim, told):
    monkeypatch.setattr(PointMass, "make_one", lambda self, frames: sim(0.1, frames))
    assert f"pointmass, {told}" in inspect("point.gin", exit_code=2)
