"""Pictures for int8: of the recorded states or of random episodes, and the same every time."""

import numpy as np
import pytest

from rrl.demos import pictures, sets
from rrl.envs.adroit import Adroit
from rrl.envs.base import FrameRequest
from rrl.envs.vector import WorkerVectorEnv

ENV = Adroit(Adroit.Config(task="door", look="fast", horizon=30))


@pytest.fixture(scope="module")
def envs():
    made = WorkerVectorEnv(ENV, 10, FrameRequest(32, 36), 0)
    yield made
    made.close()


def test_pictures_of_recorded_states(envs):
    recorded = sets.load(sets.shipped()["adroit_door_paper"])
    found = pictures.pictures(envs, recorded, seed=0)
    assert found.shape == (pictures.PICTURES, 32, 32, 3)
    assert found.dtype == np.uint8
    # the first and the last picture show the first demonstration's start and the last one's end
    sim = ENV.make_one(FrameRequest(32, 36))
    for place, i, t in ((0, 0, 0), (-1, len(recorded) - 1, -1)):
        sim.reset(seed=0, options={"initial": recorded.script(i).initial})
        qpos, qvel = recorded.states(i)
        assert np.array_equal(found[place], sim.show(qpos[t], qvel[t])["frames"])
    assert len(np.unique(found.reshape(len(found), -1), axis=0)) > 100
    envs.reset(seed=5)
    assert np.array_equal(pictures.pictures(envs, recorded, seed=1), found)


def test_pictures_without_demonstrations_are_of_random_episodes(envs):
    found = pictures.pictures(envs, None, seed=3)
    assert found.shape == (pictures.PICTURES, 32, 32, 3)
    assert len(np.unique(found.reshape(len(found), -1), axis=0)) > 100
    assert np.array_equal(pictures.pictures(envs, None, seed=3), found)
    assert not np.array_equal(pictures.pictures(envs, None, seed=4), found)
