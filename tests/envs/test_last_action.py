"""Adroit's state vector that ends with the last action."""

import numpy as np
import pydantic
import pytest
from helpers.adroit import actions, make

from rrl.config import ginfile
from rrl.demos import DemoSet
from rrl.demos.replay import NoPolicy
from rrl.envs.adroit import Adroit
from rrl.envs.adroit_tasks import TASKS
from rrl.envs.vector import WorkerVectorEnv
from rrl.registry import UserError
from rrl.rollout.episodes import Collector
from rrl.run.placement import resolve


@pytest.mark.parametrize("state", ["joints", "task"])
@pytest.mark.parametrize("task", TASKS)
def test_the_state_ends_with_the_action_as_it_was_applied(task, state):
    env, plain = make(task, state=state, last_action=True), make(task, state=state)
    count = env.action_space.shape[0]
    (seen, _), (without, _) = env.reset(seed=0), plain.reset(seed=0)
    parts = Adroit(Adroit.Config(task=task, state=state, last_action=True)).parts
    assert len(seen["state"]) == len(without["state"]) + count == sum(part.size for part in parts)
    held = (
        env.unwrapped._model.actuator_ctrlrange.mean(1)
        + seen["state"][-count:] * np.ptp(env.unwrapped._model.actuator_ctrlrange, axis=1) / 2
    )
    np.testing.assert_allclose(held, 0, atol=1e-6)  # an episode begins with all targets at 0
    for action in 1.5 * actions(env, 4):
        seen, without = env.step(action)[0]["state"], plain.step(action)[0]["state"]
        np.testing.assert_array_equal(seen[:-count], without)
        np.testing.assert_allclose(seen[-count:], action.clip(-1, 1), atol=1e-6)
    state_then = env.get_state()
    env.step(np.zeros(count, np.float32))
    np.testing.assert_array_equal(env.set_state(state_then)["state"], seen)


def test_demonstrations_are_stepped_with_it():
    envs = WorkerVectorEnv(Adroit(Adroit.Config(task="door", last_action=True)), 1, None, 0)
    shown = DemoSet(DemoSet.Config(episodes=1), env=envs.factory).replay(Collector(envs), NoPolicy(28))
    np.testing.assert_allclose(shown.obs[1:, -28:], shown.actions[:-1].clip(-1, 1), atol=1e-6)


def test_recorded_states_and_no_state_are_refused():
    with pytest.raises(UserError, match="recorded states have no actions before them"):
        resolve(ginfile.load("adroit_door_mobilenetv2", ["Adroit.last_action = True", "DemoSet.replay = 'states'"]))
    with pytest.raises(pydantic.ValidationError, match="stands beside joints or the task's state"):
        Adroit.Config(task="door", state="none", last_action=True)


def test_features_are_cached_apart():
    facts = Adroit(Adroit.Config(task="door", last_action=True)).facts()
    assert facts["last_action"] == "True"
    assert "last_action" not in Adroit(Adroit.Config(task="door")).facts()
