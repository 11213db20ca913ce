"""Environment workers that die or stand still are replaced, and nothing that is computed shows it."""

import os
import signal
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from rrl.envs import workers
from rrl.envs.adroit import Adroit
from rrl.envs.base import EnvFactory, FrameRequest
from rrl.envs.scene import Scene
from rrl.envs.vector import WorkerVectorEnv
from rrl.registry import MachineError
from rrl.rollout.data import Episode, Stream, episodes
from rrl.rollout.episodes import Collector
from rrl.rollout.steps import Stepper

PEN = Adroit(Adroit.Config(task="pen", look="fast", horizon=20))
FRAMES = FrameRequest(64, 64)
ALIKE = (Scene(),) * 5
MOVED = Scene(light_moved=(0.5, 0.5, 0.0))
NAMES = ("obs", "actions", "rewards", "terminated", "truncated", "t", "final_obs")

pytestmark = pytest.mark.filterwarnings("ignore:an environment worker ended")


class Looking:
    """Acts on noise alone, keeps the state and some of each picture."""

    stack = 1

    def observe(self, obs):
        pixels = obs.frames.reshape(len(obs.state), -1)[:, ::997]
        return np.concatenate([obs.state, pixels.astype(np.float32)], axis=1)

    def act(self, observed, noise):
        return noise.copy()


@pytest.fixture
def killing(monkeypatch):
    """killing({n: signal}): the worker of slot 0 gets a signal as the environments are to make their n-th step."""

    def at(signals):
        begun, begin = [0], WorkerVectorEnv.begin_step

        def begin_step(self, actions, active):
            begun[0] += 1
            pending = begin(self, actions, active)
            if number := signals.get(begun[0]):
                os.kill(self._workers[0]._process.pid, number)
            return pending

        monkeypatch.setattr(WorkerVectorEnv, "begin_step", begin_step)

    return at


def collected(scenes=ALIKE):
    envs = WorkerVectorEnv(PEN, 3, FRAMES, 2)
    try:
        todo = episodes(5, seed=3, stream=Stream.TRAIN, noise=(PEN.horizon, envs.action_dim))
        todo = [Episode(**{**vars(each), "scene": scene}) for each, scene in zip(todo, scenes, strict=True)]
        return Collector(envs, 2).collect(Looking(), todo), envs.deaths
    finally:
        envs.close()


def equal(one, other):
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in NAMES)


@pytest.mark.parametrize("steps", [(1, 7), (30, 31)])
def test_a_killed_worker_changes_no_number_of_a_collection(killing, steps):
    """At 31 the worker that was killed at 30 may be dying yet: then that is one death."""
    scenes = (Scene(), MOVED, Scene(), MOVED, MOVED)
    undisturbed, _ = collected(scenes)
    killing(dict.fromkeys(steps, signal.SIGKILL))
    with pytest.warns(
        UserWarning, match=r"killed by SIGKILL \(out of memory\?\)\): replaced, and \d+ steps made again"
    ):
        rollout, deaths = collected(scenes)
    assert deaths == 2 or (deaths == 1 and steps == (30, 31))
    assert equal(rollout, undisturbed)


def test_endless_stepping_goes_on_over_deaths_and_pauses(killing):
    def stepped():
        envs = WorkerVectorEnv(PEN, 2, FRAMES, 1)
        try:
            stepper = Stepper(envs, stack=1, seed=0)
            first = stepper.collect(Looking(), 13)
            with stepper.paused():  # others use the environments
                envs.reset(seed=7)
            second = stepper.collect(Looking(), 13)
            return first, second, stepper.ended, stepper.snapshot()[0]
        finally:
            envs.close()

    undisturbed = stepped()
    killing({9: signal.SIGKILL, 17: signal.SIGKILL})  # before the pause, and after it
    disturbed = stepped()
    assert equal(disturbed[0], undisturbed[0]) and equal(disturbed[1], undisturbed[1])
    assert disturbed[2] == undisturbed[2] and len(disturbed[2]) == 2
    assert all(np.array_equal(value, undisturbed[3][name]) for name, value in disturbed[3].items())


def test_a_worker_that_was_stopped_is_replaced(killing, monkeypatch):
    undisturbed, _ = collected()
    monkeypatch.setattr(workers, "LOOK", 0.2)
    killing({4: signal.SIGSTOP})
    rollout, deaths = collected()
    assert deaths == 1
    assert equal(rollout, undisturbed)


class Hanging(EnvFactory):
    """Its second step hangs, the first time."""

    class Config(EnvFactory.Config):
        marker: str

    name = "hanging"
    horizon = 5
    cameras = ()

    def make_one(self, frames):
        return HangingSim(Path(self.config.marker))


class HangingSim:
    observation_space = gymnasium.spaces.Dict({"state": gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)})
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, marker):
        self.marker = marker

    def reset(self, *, seed=None, options=None):
        self.place = float(seed)
        return {"state": np.array([self.place], np.float32)}, {}

    def step(self, action):
        self.place += float(action[0])
        if self.place == 2.0 and not self.marker.exists():
            self.marker.touch()
            time.sleep(3600)
        return {"state": np.array([self.place], np.float32)}, 0.0, False, False, {}

    def close(self):
        pass


def test_a_worker_that_stands_still_is_replaced(monkeypatch, tmp_path):
    monkeypatch.setattr(workers, "LOOK", 0.2)
    monkeypatch.setattr(workers, "STILL", 1.0)
    envs = WorkerVectorEnv(Hanging(Hanging.Config(marker=str(tmp_path / "hung"))), 1, None, 1)
    try:
        envs.reset(seed=0)
        places = [envs.step(np.ones((1, 1), np.float32))[0]["state"].item() for _ in range(3)]
    finally:
        envs.close()
    assert places == [1.0, 2.0, 3.0]
    assert envs.deaths == 1


def test_workers_that_die_again_and_again_end_the_work(killing):
    killing(dict.fromkeys(range(3, 15), signal.SIGSEGV))  # some find a process that is dying already
    with pytest.raises(MachineError, match=r"ended 3 times in one update, the last one killed by SIGSEGV$"):
        collected()


def test_a_journal_begins_where_an_episode_does():
    journal = workers.Journal()
    for call in [
        ("dress", (1,)),
        ("reset", (0, None)),
        ("step", (2,)),
        ("physics", ()),
        ("dress", (3,)),
        ("step", (4,)),
    ]:
        journal.add(*call)
    assert journal.calls == [("dress", (1,)), ("reset", (0, None)), ("step", (2,)), ("dress", (3,)), ("step", (4,))]
    journal.add("reset", (None, None))  # from where its random numbers are
    assert len(journal.calls) == 6
    journal.add("reset", (5, None))
    assert journal.calls == [("dress", (3,)), ("reset", (5, None))]
    for shown in (6, 7):
        journal.add("dress", (shown,))
        journal.add("show", (shown,))
    assert journal.calls == [("reset", (5, None)), ("dress", (7,)), ("show", (7,))]
    journal.add("set_state", (8,))
    assert journal.calls == [("dress", (7,)), ("set_state", (8,))]
