"""Recorded states as they are shown to encoders, and the visual changes that an environment knows."""

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from helpers.point import PlainPoint, registered

from rrl.demos import DemoSet
from rrl.envs.adroit import Adroit
from rrl.envs.base import FrameRequest
from rrl.envs.scene import KINDS, draws
from rrl.envs.vector import WorkerVectorEnv
from rrl.probes import pictures
from rrl.registry import build

SMALL = FrameRequest(32, 32)


@pytest.fixture(scope="module")
def door():
    """(environment, a few demonstrations)"""
    env = build(Adroit.Config(task="door", look="fast", state="task"))
    return env, build(DemoSet.Config(episodes=3), env=env).demos


def test_recorded_states_are_shown_each_at_its_place_in_its_scene(door):
    env, demos = door
    places = [(0, 0), (0, 1), (0, 150), (1, 3), (1, 199), (2, 0), (2, 77)]
    scenes = draws("light direction", len(places), seed=0)
    with closing(WorkerVectorEnv(env, 3, SMALL, 0)) as envs:
        every = np.arange(len(places))
        nominal, changed, again = (pictures.shown(envs, demos, places, s).at(every) for s in (None, scenes, None))
    with closing(env.make_one(SMALL)) as sim:
        for k, (i, t) in enumerate(places):
            sim.reset(seed=0, options={"initial": demos.script(i).initial})
            seen = sim.show(*(part[t] for part in demos.states(i)))
            assert np.array_equal(nominal.state[k], seen["state"])
            assert np.array_equal(nominal.frames[k], seen["frames"])
            sim.dress(scenes[k])
            dressed = sim.show(*(part[t] for part in demos.states(i)))["frames"]
            sim.dress(type(scenes[k])())
            assert np.array_equal(changed.frames[k], dressed)
            assert not np.array_equal(dressed, seen["frames"])
    assert np.array_equal(changed.state, nominal.state)
    assert np.array_equal(again.frames, nominal.frames)


def test_scenes_are_drawn_anew_for_each_state_and_the_same_for_each_encoder():
    drawn = draws("object colour", 5, seed=3)
    assert len({repr(scene) for scene in drawn}) == 5
    assert drawn == draws("object colour", 5, seed=3)
    assert drawn[:2] == draws("object colour", 2, seed=3)
    assert drawn != draws("object colour", 5, seed=4)


def test_an_environment_says_which_changes_it_can_show(door):
    known, refused = pictures.changes(door[0])
    assert known == ["look default", "look balanced", *KINDS]
    assert refused == {}
    with registered():
        known, refused = pictures.changes(build(PlainPoint.Config()))
    assert known == []
    assert set(refused) == set(KINDS)
    assert "cannot" in refused["new object"]


@pytest.mark.parametrize("stack", [1, 3])
def test_a_replay_is_seen_as_the_policy_sees_it(door, stack):
    """Bytes and back: pictures, older ones first, and states, of all moments and of those after the last actions."""
    env, _ = door
    frames = FrameRequest(32, 32, stack)
    seen_by_policy = []

    class Policy(pictures.Watcher):
        def observe(self, obs):
            seen_by_policy.append((obs.frames.copy(), obs.state.copy()))
            return super().observe(obs)

    source = build(DemoSet.Config(episodes=1), env=env)
    source.demos = replace(source.demos, lengths=np.array([5]), actions=source.demos.actions[:5])
    with closing(WorkerVectorEnv(env, 1, frames, 0)) as envs, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "Watcher", Policy)
        seen, final = pictures.replayed(source, envs, 1, lambda count: None)
    assert (len(seen), len(final)) == (5, 1)
    for t, (pixels, state) in enumerate(seen_by_policy):
        obs = final.at(np.array([0])) if t == 5 else seen.at(np.array([t]))
        assert obs.frames.shape == (1, 32, 32, 3 * stack)
        assert np.array_equal(obs.frames, pixels)
        assert np.array_equal(obs.state, state)
