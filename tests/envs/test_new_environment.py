"""A new environment in a few lines, no MuJoCo in it: steps, pictures, training, tags, reports, and what it can't do."""

import json

import numpy as np
import pydantic
import pytest
from helpers.point_mass import PointMass, PointMassSim

from rrl import registry
from rrl.agents.npg import NPG
from rrl.encoders.mobilenet import MobileNetV2
from rrl.encoders.state import State
from rrl.envs.base import FrameRequest, find_task, task_names
from rrl.envs.vector import WorkerVectorEnv
from rrl.evaluators.success import SuccessRate
from rrl.evaluators.video import Video
from rrl.machine.console import Display
from rrl.registry import UserError
from rrl.rollout.data import Stream, episodes
from rrl.rollout.episodes import Collector
from rrl.run import facts, loop
from rrl.run.experiment import Experiment
from rrl.run.placement import resolve
from rrl.store import results


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    registry.load_plugins()
    monkeypatch.setattr(registry, "_components", dict(registry._components))
    registry.register(PointMass)


def factory():
    return PointMass(PointMass.Config())


def make(workers, frames=None, count=3):
    return WorkerVectorEnv(factory(), count, frames, workers)


class Pusher:
    """Acts on the state, and keeps what it saw."""

    stack = 1

    def __init__(self):
        self.frames = []

    def observe(self, obs):
        if obs.frames is not None:
            self.frames.append(obs.frames.copy())
        return obs.state.copy()

    def act(self, observed, noise):
        action = np.clip(-4 * observed[:, :2] - 4 * observed[:, 2:], -1, 1)
        return action if noise is None else action + 0.1 * noise


def rollout(workers, frames=None):
    envs, policy = make(workers, frames), Pusher()
    try:
        todo = episodes(5, seed=1, stream=Stream.TRAIN, noise=(PointMass.horizon, 2))
        return Collector(envs).collect(policy, todo), policy.frames
    finally:
        envs.close()


def test_what_it_says_of_itself():
    env = factory()
    assert (env.name, env.config.label(), env.flags, env.protocol) == ("pointmass", "PointMass", ("success",), "")
    assert env.facts() == {"env": "pointmass", "radius": "0.1", "cameras": "above", "horizon": "30"}
    assert env.has_state and not env.blind_state
    assert find_task("pointmass") == env.config
    assert find_task("pointmass", radius=0.2).radius == 0.2
    assert "pointmass" in task_names()


def test_without_cameras_there_are_no_encoders_of_pictures(monkeypatch):
    parts = {"env": PointMass.Config(), "agent": NPG.Config(), "iterations": 1}
    pictures = MobileNetV2.Config(weights=None)
    Experiment.Config(encoder=pictures, **parts)
    monkeypatch.setattr(PointMass, "cameras", ())
    Experiment.Config(encoder=State.Config(), **parts)
    with pytest.raises(pydantic.ValidationError, match="MobileNetV2 needs pictures, and pointmass has no cameras"):
        Experiment.Config(encoder=pictures, **parts)


def test_episodes_are_the_same_in_workers():
    ours, _ = rollout(0)
    theirs, _ = rollout(2)
    for name in ("obs", "actions", "rewards", "terminated", "truncated", "final_obs"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert len(ours.rewards) == 5 * 30 and ours.success("success").all()
    assert ours.truncated.sum() == 5


@pytest.mark.parametrize("workers", [0, 2])
def test_it_draws_its_own_pictures(workers):
    request = FrameRequest(32, 40)
    envs = make(workers, request)
    try:
        seen, _ = envs.reset(seed=[4, 5, 6])
        assert seen["frames"].shape == (3, 32, 32, 3)
        assert envs.renderer() == "PointMassSim itself"
        alone = PointMassSim(0.1, request)
        for slot in range(3):
            same = alone.reset(seed=4 + slot)[0]
            np.testing.assert_array_equal(seen["frames"][slot], same["frames"])
        before = seen["frames"].copy()
        seen = envs.step(np.ones((3, 2), np.float32))[0]
        np.testing.assert_array_equal(seen["frames"][2], alone.step(np.ones(2, np.float32))[0]["frames"])
        assert (seen["frames"] != before).any()
    finally:
        envs.close()


def test_the_collector_shows_its_pictures_to_the_policy():
    (ours, frames), (theirs, others) = rollout(0, FrameRequest(16, 16)), rollout(2, FrameRequest(16, 16))
    np.testing.assert_array_equal(ours.obs, theirs.obs)
    for one, two in zip(frames, others, strict=True):
        np.testing.assert_array_equal(one, two)
    assert frames[0].shape == (3, 16, 16, 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_it_cannot_do_is_told_and_it_goes_on(workers):
    envs = make(workers)
    try:
        envs.reset(seed=0)
        for method, words in {
            "render": "be filmed",
            "dress": "have its pictures changed",
            "physics": "record its states",
            "initial": "recorded one began",
            "show": "play back recorded states",
            "get_state": "agents that learn at every step",
            "set_state": "agents that learn at every step",
        }.items():
            with pytest.raises(UserError, match=f"pointmass cannot .*{words}.*: its simulator has no .*`{method}`"):
                envs.call(method)
        with pytest.raises(UserError, match="pointmass cannot start an episode where a recorded one began"):
            envs.reset(options={"initial": [{"at": np.zeros(2)}, None, None]})
        envs.step(np.zeros((3, 2), np.float32))
    finally:
        envs.close()


class Notebook:
    """A tracker that remembers."""

    run_id = "0"

    def __init__(self):
        self.seen_tags, self.rows = {}, []

    def tags(self, tags):
        self.seen_tags |= tags

    def dataset(self, dataset): ...

    def metrics(self, rows):
        self.rows = list(rows)

    def params(self, params): ...

    def text(self, text, name): ...

    def artifact(self, path, folder=""): ...


def test_an_agent_trains_on_it_and_reports_know_it(tmp_path):
    agent = NPG.Config(trajectories=4, policy_hidden=(8,), value_hidden=(8,), value_batch=16)
    config = resolve(
        Experiment.Config(
            env=PointMass.Config(),
            encoder=State.Config(),
            agent=agent,
            evaluators=(SuccessRate.Config(episodes=2), Video.Config(episodes=1)),
            iterations=2,
            num_envs=2,
            workers=0,
            threads=1,
        )
    )
    experiment, notebook = Experiment(config), Notebook()
    with Display() as display:
        assert loop.train(experiment, tmp_path, notebook, display) == "finished"
    assert facts.title(experiment).split() == ["pointmass", "State", "NPG", "seed", "0"]
    tags = notebook.seen_tags
    assert (tags["env"], tags["cameras"], tags["horizon"], tags["renderer"]) == ("pointmass", "above", "30", "none")
    assert notebook.rows[-1].step == 2 * 4 * 30
    results.write_config(tmp_path, config)
    (tmp_path / "run.json").write_text(json.dumps({"run_id": "0", "started": "2026-01-01", "name": "a"}))
    result = results.read(tmp_path)
    assert result.labels == {"env": "PointMass", "encoder": "State", "agent": "NPG"}
    assert result.score == PointMass.score
    assert result.last("train/success") is not None
    assert result.last("eval/success") is not None
