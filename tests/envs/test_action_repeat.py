"""Adroit's actions that are held for several control steps, and demonstrations of others."""

import numpy as np
import pytest
from helpers.adroit import actions, make

from rrl.demos import DemoSet
from rrl.demos.replay import NoPolicy
from rrl.demos.sets import load, shipped
from rrl.envs.adroit import Adroit
from rrl.envs.adroit_tasks import TASKS
from rrl.envs.base import find_recorded
from rrl.envs.vector import WorkerVectorEnv
from rrl.rollout.episodes import Collector


def factory(**settings):
    return Adroit(Adroit.Config(**({"task": "door"} | settings)))


@pytest.mark.parametrize("task", TASKS)
def test_an_action_is_held_and_rewards_are_summed(task):
    held, plain = make(task, action_repeat=3), make(task)
    held.reset(seed=0), plain.reset(seed=0)
    for action in actions(held, 5):
        seen, reward, _, _, flags = held.step(action)
        singles = [plain.step(action) for _ in range(3)]
        np.testing.assert_array_equal(seen["state"], singles[-1][0]["state"])
        assert reward == pytest.approx(sum(single[1] for single in singles))
        assert flags == singles[-1][4]
    assert held.metadata["render_fps"] == pytest.approx(100 / 3)


def test_an_episode_lasts_as_long_and_succeeds_by_as_much():
    assert factory(action_repeat=3).horizon == 67 and factory(action_repeat=2).horizon == 100
    assert factory(action_repeat=2, horizon=50).horizon == 50
    assert factory(action_repeat=2).score.steps == 12 and factory().score.steps == 25
    env = make("door", action_repeat=3)
    env.reset(seed=0)
    ends = [env.step(np.zeros(28, np.float32))[3] for _ in range(67)]
    assert ends == [False] * 66 + [True]


def test_at_one_nothing_is_told():
    assert "action_repeat" not in factory().facts()
    facts = factory(action_repeat=2).facts()
    assert facts["action_repeat"] == "2"
    assert find_recorded(facts).action_repeat == 2 and find_recorded(factory().facts()).action_repeat == 1


def test_demonstrations_are_means_of_recorded_actions():
    demos = load(shipped()["adroit_door_paper"])
    slower = demos.repeated(3)
    length = int(demos.lengths[0])
    assert slower.lengths[0] == -(-length // 3) and slower.action_repeat == 3
    np.testing.assert_allclose(slower.actions[1], demos.actions[3:6].clip(-1, 1).mean(0), atol=1e-6)
    rest = length - 3 * (int(slower.lengths[0]) - 1)
    last = int(slower.lengths[0]) - 1
    np.testing.assert_allclose(
        slower.actions[last], demos.actions[length - rest : length].clip(-1, 1).mean(0), atol=1e-6
    )
    for i in (0, 4):
        (qpos, _), (ours, _) = demos.states(i), slower.states(i)
        np.testing.assert_array_equal(ours, qpos[[*range(0, len(qpos) - 1, 3), len(qpos) - 1]])
    assert slower.flags["success"][last] == demos.flags["success"][length - 1]
    assert slower.fault() == "" and len(slower) == len(demos)


def test_a_run_replays_them_so():
    envs = WorkerVectorEnv(factory(action_repeat=2), 1, None, 0)
    chosen = DemoSet(DemoSet.Config(episodes=2), env=envs.factory)
    assert not [said for said in chosen.mismatches() if "action_repeat" in said or "horizon" in said]
    shown = chosen.replay(Collector(envs), NoPolicy(28))
    assert len(shown.t) == int(chosen.demos.lengths.sum())
    assert shown.flags["success"].any()
    faster = DemoSet(DemoSet.Config(episodes=2), env=factory())
    faster.demos = chosen.demos
    assert "demonstrations were recorded with action_repeat 2, this run has 1" in faster.mismatches()
