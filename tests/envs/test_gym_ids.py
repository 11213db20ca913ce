"""Environments by gymnasium's names, and gymnasium's own opinion of them."""

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rrl.envs import Adroit, DMControl, FrameRequest, gym_ids
from rrl.registry import UserError

IDS = (
    *(f"rrl/Adroit{task}-v0" for task in ("Pen", "Door", "Hammer", "Relocate")),
    *(f"rrl/DMControl{task}-v0" for task in ("FingerSpin", "CartpoleSwingup", "ReacherEasy", "CheetahRun")),
    *(f"rrl/DMControl{task}-v0" for task in ("WalkerWalk", "BallInCupCatch")),
    *("rrl/Reacher7DoF-v0", "rrl/PegInsertion-v0"),
)


def checked(env):
    """Warnings of gymnasium's checker, but for those of state vectors without bounds."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env)
    return [str(warning.message) for warning in caught if "infinity" not in str(warning.message)]


def same(one, two):
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name])


def test_the_papers_tasks_are_registered():
    assert {name for name in gymnasium.registry if name.startswith("rrl/")} == set(IDS)


@pytest.mark.parametrize("name", IDS)
def test_gymnasium_finds_nothing_wrong(name):
    assert checked(gymnasium.make(name).unwrapped) == []


def pictures(name):
    return {"look": "fast", "frames": 24, "crop_from": 32, **({"state": "none"} if "DMControl" in name else {})}


@pytest.mark.parametrize("name", [IDS[3], IDS[4]])
def test_gymnasium_finds_nothing_wrong_with_pictures(name):
    env = gymnasium.make(name, **pictures(name)).unwrapped
    assert env.observation_space["frames"].shape == (24, 24, 9 if "Relocate" in name else 3)
    assert checked(env) == []


@pytest.mark.parametrize(
    ("name", "factory"),
    [
        ("rrl/AdroitRelocate-v0", Adroit(Adroit.Config(task="relocate", look="fast"))),
        (
            "rrl/DMControlBallInCupCatch-v0",
            DMControl(DMControl.Config(domain="ball_in_cup", task="catch", look="fast", state="none")),
        ),
    ],
)
def test_it_is_the_environment_of_a_run(name, factory):
    ours = factory.make_one(FrameRequest(24, 32))
    theirs = gymnasium.make(name, **pictures(name))
    same(ours.reset(seed=3)[0], theirs.reset(seed=3)[0])
    for action in np.random.default_rng(0).uniform(-1, 1, (3, *ours.action_space.shape)).astype(np.float32):
        one, two = ours.step(action), theirs.step(action)
        same(one[0], two[0])
        assert one[1:] == two[1:]


def test_arguments_reach_the_config():
    env = gymnasium.make("rrl/AdroitDoor-v0", state="task", cameras=["fixed"], horizon=2, render_mode="rgb_array_list")
    assert env.observation_space["state"].shape == (39,)
    env.reset(seed=0)
    still = np.zeros(env.action_space.shape, np.float32)
    assert [env.step(still)[3] for _ in range(2)] == [False, True]
    assert [picture.shape for picture in env.render()] == [(480, 480, 3)] * 3
    again = gymnasium.make(gymnasium.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert again.observation_space == env.observation_space


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"rewrad": "dense"}, "Adroit has no setting 'rewrad'; it takes task, protocol, reward"),
        ({"reward": "dens"}, "Adroit.reward must be 'sparse' or 'dense' or None; got 'dens'"),
        ({"render_mode": "ansi"}, "render_mode is 'rgb_array', pictures for people; got 'ansi'"),
        ({"frames": "84"}, "side of the pictures in pixels, at most crop_from; got frames='84', crop_from=None"),
        ({"frames": 84, "crop_from": 64}, "got frames=84, crop_from=64"),
        ({"crop_from": 64}, "got frames=None, crop_from=64"),
    ],
)
def test_what_does_not_fit_is_told(wrong, told):
    with pytest.raises(UserError) as caught:
        gym_ids.make("Adroit", **{"task": "door", **wrong})
    assert told in str(caught.value)


@pytest.mark.parametrize("first", ["import rrl.envs, gymnasium", "import gymnasium, rrl.envs", "import gymnasium"])
def test_the_order_of_imports_does_not_matter(first, tmp_path):
    name = "rrl/AdroitPen-v0" if "rrl" in first else "rrl.envs:rrl/AdroitPen-v0"
    code = f"{first}; print(gymnasium.make({name!r}).spec.id)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "rrl/AdroitPen-v0", done.stderr


def test_several_at_once():
    envs = gymnasium.make_vec("rrl/AdroitDoor-v0", num_envs=2, reward="dense")
    envs.reset(seed=0)
    _, reward, *_, info = envs.step(np.zeros((2, 28), np.float32))
    assert reward.shape == (2,) and info["success"].tolist() == [False, False]
    envs.close()
