"""Recorded states as they are shown to encoders, and the visual changes that an environment knows."""

from contextlib import closing

import numpy as np
import pytest
from helpers.point import PlainPoint, registered

from rrl.demos import DemoSet
from rrl.envs.adroit import Adroit
from rrl.envs.base import FrameRequest
from rrl.envs.scene import KINDS
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
    scenes = pictures.scenes("light direction", len(places), seed=0)
    with closing(WorkerVectorEnv(env, 3, SMALL, 0)) as envs:
        nominal = pictures.shown(envs, demos, places)
        changed = pictures.shown(envs, demos, places, scenes)
        again = pictures.shown(envs, demos, places)
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
    drawn = pictures.scenes("object colour", 5, seed=3)
    assert len({repr(scene) for scene in drawn}) == 5
    assert drawn == pictures.scenes("object colour", 5, seed=3)
    assert drawn[:2] == pictures.scenes("object colour", 2, seed=3)
    assert drawn != pictures.scenes("object colour", 5, seed=4)


def test_an_environment_says_which_changes_it_can_show(door):
    known, refused = pictures.changes(door[0])
    assert known == ["look default", "look balanced", *KINDS]
    assert refused == {}
    with registered():
        known, refused = pictures.changes(build(PlainPoint.Config()))
    assert known == []
    assert set(refused) == set(KINDS)
    assert "cannot" in refused["new object"]
