"""Collection: the same bits whatever the number of worker processes; bookkeeping of episodes."""

import numpy as np
import pytest

from rrl.encoders.base import Inference
from rrl.encoders.mobilenet import MobileNetV2
from rrl.envs.adroit import Adroit
from rrl.envs.vector import WorkerVectorEnv
from rrl.registry import build
from rrl.rollout.data import Obs, Rollout, Stream, episodes
from rrl.rollout.episodes import Collector


class Still:
    """Acts on noise alone, keeps the state."""

    stack = 1

    def observe(self, obs: Obs):
        return obs.state.copy()

    def act(self, observed, noise):
        return noise.copy()


def agent(envs):
    from rrl.agents.npg import NPG

    encoder = MobileNetV2(MobileNetV2.Config(), cameras=1)
    return build(
        NPG.Config(policy_hidden=(16,)),
        encoder=encoder,
        state_dim=envs.state_dim,
        action_dim=envs.action_dim,
        seed=0,
        inference=Inference(),
    )


@pytest.mark.parametrize("groups", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_rollouts_are_equal_for_any_number_of_workers(groups):
    env = Adroit(Adroit.Config(task="pen", look="fast", horizon=40))
    frames = MobileNetV2.Config().frames()
    rollouts = []
    for workers in (1, 4):
        envs = WorkerVectorEnv(env, 5, frames, workers)
        try:
            noise = (env.horizon, envs.action_dim)
            todo = episodes(7, seed=3, stream=Stream.TRAIN, iteration=1, noise=noise)
            rollouts.append(Collector(envs, groups).collect(agent(envs), todo))
        finally:
            envs.close()
    first = rollouts[0]
    assert first.obs.shape == (len(first.t), 1280 + 24)
    assert first.terminated.any(), "the test needs early terminations"
    for other in rollouts[1:]:
        for name in ("obs", "actions", "rewards", "episode", "t", "terminated", "truncated", "final_obs"):
            assert np.array_equal(getattr(first, name), getattr(other, name)), name
        for flag, values in first.flags.items():
            assert np.array_equal(values, other.flags[flag])


def test_episodes_follow_their_own_seeds():
    """Neither the number of slots nor the neighbours change an episode (the physics' part of it)."""
    env = Adroit(Adroit.Config(task="pen", state="task", horizon=40))
    found = []
    for slots in (1, 3):
        envs = WorkerVectorEnv(env, slots, None, 0)
        todo = episodes(4, seed=5, stream=Stream.EVAL, noise=(40, envs.action_dim))
        found.append(Collector(envs).collect(Still(), todo))
        envs.close()
    assert np.array_equal(found[0].obs, found[1].obs)
    assert np.array_equal(found[0].rewards, found[1].rewards)


class Recording(Still):
    """Keeps the sizes of the batches that it sees."""

    def __init__(self):
        self.sizes = set()

    def act(self, observed, noise):
        self.sizes.add(len(observed))
        return super().act(observed, noise)


@pytest.mark.parametrize(("groups", "sizes"), [(1, {5}), (2, {2, 3}), (9, {1})])
def test_groups_run_the_same_episodes_in_smaller_batches(groups, sizes):
    """More episodes than slots, early ends and idle slots at the end; physics alone is exact per episode."""
    env = Adroit(Adroit.Config(task="pen", state="task", horizon=70))
    envs = WorkerVectorEnv(env, 5, None, 2)
    todo = episodes(12, seed=1, stream=Stream.TRAIN, noise=(70, envs.action_dim))
    whole, policy, seen, made = Collector(envs).collect(Still(), todo), Recording(), [], []
    rollout = Collector(envs, groups).collect(
        policy, todo, each_step=lambda i, t: seen.append((i[i >= 0], t[i >= 0])), progress=made.append
    )
    envs.close()
    assert policy.sizes == sizes
    assert whole.terminated.any(), "the test needs early terminations"
    for name in ("obs", "actions", "rewards", "episode", "t", "terminated", "truncated", "final_obs"):
        assert np.array_equal(getattr(rollout, name), getattr(whole, name)), name
    assert sum(made) == len(rollout.t)
    # every step of every episode was shown once to `each_step`
    steps = [(int(i), int(t)) for each in seen for i, t in zip(*each, strict=True)]
    assert sorted(steps) == sorted(zip(rollout.episode.tolist(), (rollout.t + 1).tolist(), strict=True))


def test_work_can_be_sent_while_a_step_is_under_way():
    env = Adroit(Adroit.Config(task="door", state="task"))
    envs, alone = WorkerVectorEnv(env, 4, None, 2), WorkerVectorEnv(env, 4, None, 0)
    rng = np.random.default_rng(0)
    first, second = np.array([True, True, False, False]), np.array([False, False, True, True])
    for each in (envs, alone):
        each.reset(seed=0)
    for _ in range(5):
        actions = rng.uniform(-1, 1, (4, 28)).astype(np.float32)
        a = envs.begin_step(actions, first)
        b = envs.begin_step(actions, second)
        positions = envs.call("physics")  # answered after both steps, though they are not waited for
        envs.wait(b)
        envs.wait(a)
        alone.step(actions)
        for (q, _), (wanted, _) in zip(positions, alone.call("physics"), strict=True):
            assert np.array_equal(q, wanted)
        assert np.array_equal(envs.results()["reward"], alone.results()["reward"])
        assert np.array_equal(envs.observation()["state"], alone.observation()["state"])
    envs.close()
    alone.close()


def test_bookkeeping():
    env = Adroit(Adroit.Config(task="door", state="task", horizon=9))
    envs = WorkerVectorEnv(env, 2, None, 0)
    rollout = Collector(envs).collect(Still(), episodes(3, seed=0, stream=Stream.TRAIN, noise=(9, 28)))
    envs.close()
    assert rollout.episode.tolist() == [0] * 9 + [1] * 9 + [2] * 9
    assert rollout.t.tolist() == list(range(9)) * 3
    assert rollout.truncated.tolist() == ([False] * 8 + [True]) * 3
    assert not rollout.terminated.any()
    assert rollout.starts.tolist() == [0, 9, 18]
    assert np.allclose(rollout.returns(), rollout.rewards.reshape(3, 9).sum(1))
    # the final observation is no step's, and the first one is the reset's
    assert rollout.final_obs.shape == (3, 39)
    assert not np.array_equal(rollout.final_obs[0], rollout.obs[8])


@pytest.mark.parametrize(("up", "succeeds"), [(25, False), (26, True)])
def test_success_needs_more_than_its_steps(up, succeeds):
    flags = np.arange(40) < up
    zeros = np.zeros(40, bool)
    rollout = Rollout(
        obs=np.zeros((40, 1), np.float32),
        actions=np.zeros((40, 1), np.float32),
        rewards=np.zeros(40),
        flags={"success": flags},
        episode=np.zeros(40, np.int32),
        t=np.arange(40, dtype=np.int32),
        terminated=zeros,
        truncated=zeros,
        final_obs=np.zeros((1, 1), np.float32),
        success_steps=Adroit(Adroit.Config(task="door")).score.steps,
    )
    assert rollout.success("success").tolist() == [succeeds]


def test_streams_and_iterations_differ_and_repeat():
    def seeds(**kw):
        return [e.seed for e in episodes(5, **({"seed": 0, "stream": Stream.TRAIN} | kw))]

    assert seeds() == seeds()
    assert len({*seeds(), *seeds(iteration=1), *seeds(stream=Stream.EVAL), *seeds(seed=1)}) == 20
    assert seeds()[:3] == [e.seed for e in episodes(3, seed=0, stream=Stream.TRAIN)]


def test_a_failing_worker_says_why():
    env = Adroit(Adroit.Config(task="door"))
    envs = WorkerVectorEnv(env, 2, None, 1)
    with pytest.raises(RuntimeError, match="AttributeError"):
        envs.call("no_such_method")
    envs.close()
