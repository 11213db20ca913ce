"""Adroit's joints with the arm's after the hand's."""

import numpy as np
import pydantic
import pytest
from helpers.adroit import actions, make

from rrl.envs.adroit import Adroit

ARMS = {"door": 4, "hammer": 2, "relocate": 6}


@pytest.mark.parametrize("last_action", [False, True])
@pytest.mark.parametrize(("task", "count"), ARMS.items())
def test_the_arms_joints_stand_between_the_hands_and_the_last_action(task, count, last_action):
    given = {"last_action": last_action}
    env, plain = make(task, arm_joints=True, **given), make(task, **given)
    parts = Adroit(Adroit.Config(task=task, arm_joints=True, **given)).parts
    env.reset(seed=0), plain.reset(seed=0)
    for action in actions(env, 4):
        seen, without = env.step(action)[0]["state"], plain.step(action)[0]["state"]
        arm = [env.unwrapped._data.joint(i).qpos[0] for i in range(count)]
        assert all(env.unwrapped._model.joint(i).name.startswith("AR") for i in range(count))
        np.testing.assert_array_equal(seen, np.insert(without, 24, np.float32(arm)))
    assert np.abs(arm).max() > 0.001
    assert [part.size for part in parts][:2] == [24, count]
    assert len(seen) == sum(part.size for part in parts)


def test_pen_and_other_states_have_none():
    with pytest.raises(pydantic.ValidationError, match="pen's hand has no arm"):
        Adroit.Config(task="pen", arm_joints=True)
    with pytest.raises(pydantic.ValidationError, match="stand beside the hand's, in state 'joints'; state is 'task'"):
        Adroit.Config(task="door", state="task", arm_joints=True)


def test_features_are_cached_apart():
    assert Adroit(Adroit.Config(task="door", arm_joints=True)).facts()["arm_joints"] == "True"
    assert "arm_joints" not in Adroit(Adroit.Config(task="door")).facts()
