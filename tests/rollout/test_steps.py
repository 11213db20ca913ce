"""Endless stepping: agents that want several steps of every environment before each update get them."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from rrl.agents.base import AgentSteps
from rrl.agents.replay import ARRAYS, Replay
from rrl.encoders.state import State
from rrl.envs.base import EnvFactory
from rrl.envs.vector import WorkerVectorEnv
from rrl.rollout.steps import Stepper, joined
from rrl.run.iteration import on_steps
from rrl.run.ledger import Ledger

SLOTS = 3


class Counting(EnvFactory):
    """Episodes of 2 to 5 steps, by their seeds: the odd ones are truncated, the even ones end. The state is the
    episode's number and the step."""

    class Config(EnvFactory.Config):
        pass

    name = "counting"
    horizon = 5
    cameras = ()

    def make_one(self, frames):
        return CountingSim()


class CountingSim:
    observation_space = gymnasium.spaces.Dict({"state": gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)})
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    frame_buffer = None

    def reset(self, *, seed=None, options=None):
        self.number, self.length, self.t = seed % 100_003, 2 + seed % 4, 0
        return self.observation(), {}

    def observation(self):
        return {"state": np.array([self.number, self.t], np.float32)}

    def step(self, action):
        self.t += 1
        over, odd = self.t == self.length, self.length % 2 == 1
        reward = float(action[0]) + self.number
        return self.observation(), reward, over and not odd, over and odd, {}

    def close(self):
        pass


class Still:
    """Acts on noise alone, keeps the state, and every rollout that it is updated with."""

    stack = action_dim = views = 1
    updates = 0

    def __init__(self):
        self.rollouts = []

    def observe(self, obs):
        return obs.state.copy()

    def act(self, observed, noise):
        return noise.copy()

    def update(self, rollout):
        self.rollouts.append(rollout)
        return {"updates": float(len(self.rollouts))}


@pytest.fixture
def stepper():
    envs = WorkerVectorEnv(Counting(Counting.Config()), SLOTS, None, 0)
    yield Stepper(envs, 1, seed=3)
    envs.close()


def ledger():
    return Ledger(State(State.Config(), cameras=0), None)


def single_steps(count):
    """The same steps, one at a time."""
    envs = WorkerVectorEnv(Counting(Counting.Config()), SLOTS, None, 0)
    one = Stepper(envs, 1, seed=3)
    rounds = [one.step(Still()) for _ in range(count)]
    envs.close()
    return rounds


def test_an_agent_is_updated_after_the_steps_that_it_wants(stepper):
    wants, agent = AgentSteps(7), Still()
    progress = []
    metrics, steps = on_steps(agent, stepper, wants, 2 * 7 * SLOTS, ledger(), progress.append)
    assert len(agent.rollouts) == 2 and steps == 2 * 7 * SLOTS == sum(progress)
    assert metrics["updates"] == 1.5  # the mean over the updates
    rounds = single_steps(14)
    assert metrics["train/episodes"] == sum(int((r.terminated | r.truncated).sum()) for r in rounds)
    for k, rollout in enumerate(agent.rollouts):
        mine = rounds[7 * k : 7 * k + 7]
        assert rollout.obs.shape == (7 * SLOTS, 2) and rollout.actions.shape == (7 * SLOTS, 1)
        ends = rollout.terminated | rollout.truncated
        assert rollout.terminated.any() and rollout.truncated.any(), "the test needs episodes that end inside"
        for slot in range(SLOTS):
            rows = slice(7 * slot, 7 * slot + 7)  # sorted by slot, then time
            for name in ("obs", "actions", "rewards", "t", "terminated", "truncated"):
                expected = [getattr(one, name)[slot] for one in mine]
                np.testing.assert_array_equal(getattr(rollout, name)[rows], expected, err_msg=name)
            np.testing.assert_array_equal(rollout.obs[rows, 1], rollout.t[rows])
        # Pieces end where episodes do and where the collection does, and know what they led to.
        last = np.flatnonzero(ends | (np.arange(7 * SLOTS) % 7 == 6))
        np.testing.assert_array_equal(np.flatnonzero(np.append(np.diff(rollout.episode), 1)), last)
        np.testing.assert_array_equal(rollout.slots, last // 7)
        assert rollout.episodes == len(last) == rollout.episode[-1] + 1
        np.testing.assert_array_equal(rollout.final_obs[:, 0], rollout.obs[last, 0])  # of the same episode
        np.testing.assert_array_equal(rollout.final_obs[:, 1], rollout.t[last] + 1)
    # Episodes go on from one update to the next.
    first, second = agent.rollouts
    for slot in range(SLOTS):
        end, begin = 7 * slot + 6, 7 * slot
        if not (first.terminated | first.truncated)[end]:
            piece = int(first.episode[end])
            np.testing.assert_array_equal(second.obs[begin], first.final_obs[piece])
            assert second.t[begin] == first.t[end] + 1
        else:
            assert second.t[begin] == 0
    goes_on = [not (first.terminated | first.truncated)[7 * slot + 6] for slot in range(SLOTS)]
    assert any(goes_on), "the test needs an episode that goes on"


def test_a_single_step_is_a_rollout_as_it_always_was(stepper):
    (reference,) = single_steps(1)
    rollout = stepper.collect(Still(), 1)
    for name in ("obs", "actions", "rewards", "episode", "t", "terminated", "truncated", "final_obs", "slots"):
        np.testing.assert_array_equal(getattr(rollout, name), getattr(reference, name), err_msg=name)
    alone = joined([reference])
    for name in ("obs", "rewards", "episode", "final_obs", "slots"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(reference, name), err_msg=name)


def test_an_agent_may_learn_while_the_environments_step(stepper):
    """Each round's actions are chosen before the update on the one before; all is learnt when an iteration ends."""
    agent, said = Still(), []
    act, update = agent.act, agent.update

    def acting(observed, noise):
        said.append("act")
        return act(observed, noise)

    def updating(rollout):
        said.append("update")
        return update(rollout)

    agent.act, agent.update = acting, updating
    for _ in range(2):
        on_steps(agent, stepper, AgentSteps(1, overlap=True), 3 * SLOTS, ledger(), lambda _: None)
        assert said[:6] == ["act", "act", "update", "act", "update", "update"]
        assert "update" not in said[6:]  # the ledger looks at an action
        said.clear()
    rounds = single_steps(6)
    for one, other in zip(agent.rollouts, rounds, strict=True):
        np.testing.assert_array_equal(one.obs, other.obs)
        np.testing.assert_array_equal(one.rewards, other.rewards)


@pytest.mark.parametrize("count", [2, 7])
def test_a_memory_keeps_slots_apart_whatever_the_length_of_rollouts(stepper, count):
    """The same bytes as from single steps: rollouts of several steps hold several pieces of a slot."""
    agent = Still()
    on_steps(agent, stepper, AgentSteps(count), 14 * SLOTS, ledger(), lambda _: None)
    pieces = np.concatenate([rollout.slots for rollout in agent.rollouts])
    assert len(pieces) > SLOTS * len(agent.rollouts), "the test needs several pieces of a slot"
    several, single = (Replay(200, 2, np.float32, action_dim=1) for _ in range(2))
    for rollout in agent.rollouts:
        several.add(rollout)
    for rollout in single_steps(14):
        single.add(rollout)
    assert several.slots == single.slots == SLOTS
    np.testing.assert_array_equal(several.head, single.head)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(several, name), getattr(single, name), err_msg=name)
    for slot in range(SLOTS):  # an episode's number is in one slot alone
        others = np.delete(several.rows[..., 0], slot, axis=0)
        assert not np.intersect1d(several.rows[slot, : several.head[slot], 0], others[others != 0]).size


def test_starts_are_the_pieces_own():
    """A piece may go on in the middle of an episode."""
    envs = WorkerVectorEnv(Counting(Counting.Config()), SLOTS, None, 0)
    try:
        stepper = Stepper(envs, 1, seed=0)
        for _ in range(3):
            rollout = stepper.collect(Still(), 4)
            assert len(rollout.starts) == rollout.episodes
            assert (np.diff(rollout.episode, prepend=-1)[rollout.starts] == 1).all()
    finally:
        envs.close()
