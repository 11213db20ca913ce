"""Noise on the observed joint angles (paper figure 8): its size, its seeds, and what it leaves alone."""

from __future__ import annotations

import mujoco
import numpy as np
import pydantic
import pytest

from rrl.commands.demos import NoPolicy
from rrl.demos import DemoSet
from rrl.envs import adroit_scene
from rrl.envs.adroit import Adroit
from rrl.envs.adroit_tasks import TASKS
from rrl.envs.base import FrameRequest
from rrl.envs.vector import WorkerVectorEnv
from rrl.rollout.data import Stream, episodes
from rrl.rollout.episodes import Collector

JOINTS = [
    *("WRJ1", "WRJ0"),
    *(f"{finger}J{i}" for finger in ("FF", "MF", "RF") for i in (3, 2, 1, 0)),
    *(f"{finger}J{i}" for finger in ("LF", "TH") for i in (4, 3, 2, 1, 0)),
]
"""The paper's 24 joints, in the observation's order."""


def factory(task="door", **settings):
    return Adroit(Adroit.Config(task=task, **settings))


def make(task="door", frames=None, **settings):
    return factory(task, **settings).make_one(frames)


def hand(task):
    """The 24 joints in gymnasium_robotics' own file: their places in qpos, and their ranges in rad."""
    model = mujoco.MjModel.from_xml_path(str(adroit_scene.assets() / TASKS[task].xml))
    joints = [model.joint(name) for name in JOINTS]
    return [joint.qposadr[0] for joint in joints], np.array([np.ptp(joint.range) for joint in joints])


def actions(env, steps, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (steps, *env.action_space.shape)).astype(np.float32)


@pytest.mark.parametrize("task", TASKS)
def test_std_is_a_fraction_of_each_joints_range(task):
    addresses, ranges = hand(task)
    env, count = make(task, joint_noise=0.02), 3000
    env.reset(seed=1)
    still = env.physics()
    noise = np.stack([env.show(*still)["state"] for _ in range(count)]) - still[0][addresses]
    std = 0.02 * ranges
    # Five standard errors each.
    np.testing.assert_allclose(noise.std(axis=0), std, rtol=5 / np.sqrt(2 * count))
    assert (np.abs(noise.mean(axis=0)) < 5 * std / np.sqrt(count)).all()
    between = np.corrcoef(noise.T) - np.eye(24)
    assert np.abs(between).max() < 5 / np.sqrt(count)
    after = np.corrcoef(noise[:-1, 0], noise[1:, 0])[0, 1]
    assert abs(after) < 5 / np.sqrt(count)


def test_physics_rewards_and_pictures_do_not_change():
    request = FrameRequest(64, 64)
    clean = make(frames=request, look="fast")
    noisy = make(frames=request, look="fast", joint_noise=0.02)
    for seed in (3, 4):
        a, b = clean.reset(seed=seed)[0], noisy.reset(seed=seed)[0]
        for action in actions(clean, 5, seed):
            np.testing.assert_array_equal(a["frames"], b["frames"])
            assert (a["state"] != b["state"]).all()
            (a, *what, _), (b, *same, _) = clean.step(action), noisy.step(action)
            assert what == same
            for one, other in zip(clean.physics(), noisy.physics(), strict=True):
                np.testing.assert_array_equal(one, other)


def test_zero_noise_draws_nothing():
    env = make(joint_noise=0.0)
    observation, _ = env.reset(seed=5)
    np.testing.assert_array_equal(observation["state"], env.physics()[0][4:28].astype(np.float32))
    before = env.get_state()["rng"]
    env.step(actions(env, 1)[0])
    np.testing.assert_array_equal(env.get_state()["rng"], before)


def test_seeds_alone_decide_the_noise():
    """Neither the number of environments nor that of processes does; episodes and seeds do."""
    todo = episodes(4, seed=6, stream=Stream.EVAL)

    def observed(num_envs, workers, todo):
        envs = WorkerVectorEnv(factory(horizon=6, joint_noise=0.02), num_envs, None, workers)
        try:
            return Collector(envs).collect(NoPolicy(28), todo).obs
        finally:
            envs.close()

    here = observed(1, 0, todo)
    np.testing.assert_array_equal(here, observed(3, 2, todo))
    by_episode = here.reshape(4, 6, 24)[:, 0]  # all start from the same pose: the noise differs
    assert len(np.unique(by_episode, axis=0)) == 4
    assert (here != observed(1, 0, episodes(4, seed=7, stream=Stream.EVAL))).all()


def test_state_continues_bit_for_bit():
    first, second = make(joint_noise=0.02), make(joint_noise=0.02)
    first.reset(seed=8)
    todo = actions(first, 12)
    for action in todo[:6]:
        seen = first.step(action)[0]["state"]
    saved = first.get_state()
    second.reset(seed=9)
    np.testing.assert_array_equal(second.set_state(saved)["state"], seen)
    for action in todo[6:]:
        np.testing.assert_array_equal(first.step(action)[0]["state"], second.step(action)[0]["state"])


@pytest.mark.parametrize("replay", ["actions", "states"])
def test_demonstrations_have_noise_of_their_own(replay):
    def replayed(num_envs, noise):
        envs = WorkerVectorEnv(factory(joint_noise=noise), num_envs, None, 0)
        chosen = DemoSet(DemoSet.Config(episodes=3, replay=replay), env=envs.factory)
        return chosen.replay(Collector(envs), NoPolicy(28))

    clean, noisy = replayed(3, 0.0), replayed(3, 0.02)
    np.testing.assert_array_equal(noisy.obs, replayed(2, 0.02).obs)
    np.testing.assert_array_equal(noisy.actions, clean.actions)
    np.testing.assert_array_equal(noisy.rewards, clean.rewards)
    noise = noisy.obs - clean.obs
    assert 0.015 < (noise.std(axis=0) / hand("door")[1]).mean() < 0.025
    starts = noise[noisy.starts]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(starts[i] - starts[j]).max() > 0.01


def test_only_joint_angles_can_be_noisy():
    for state in ("task", "none"):
        with pytest.raises(pydantic.ValidationError, match=f"only in state 'joints'; state is '{state}'"):
            Adroit.Config(task="door", state=state, joint_noise=0.02)
        Adroit.Config(task="door", state=state, joint_noise=0.0)
    for wrong in (-0.01, float("nan"), float("inf")):
        with pytest.raises(pydantic.ValidationError, match="joint_noise"):
            Adroit.Config(task="door", joint_noise=wrong)


def test_facts_name_the_noise_only_where_there_is_some():
    assert factory(joint_noise=0.02).facts()["joint_noise"] == "0.02"
    assert "joint_noise" not in factory().facts()
