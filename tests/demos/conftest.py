"""Episodes that the tests of importers write in other formats."""

import pytest

from rrl.demos import sets

COUNT = 2


@pytest.fixture(scope="module")
def made():
    return sets.load(sets.shipped()["adroit_door_paper"]).pick(range(COUNT))


@pytest.fixture(scope="module")
def episodes(made):
    """The shipped episodes as plain arrays."""
    found = []
    for i in range(COUNT):
        script, (qpos, qvel) = made.script(i), made.states(i)
        found.append({"actions": script.actions, "initial": script.initial, "qpos": qpos, "qvel": qvel})
    return found
