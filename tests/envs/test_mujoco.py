"""What a simulator gets from `MuJoCoSim`: a third one, a pole on a hinge with a goal, in a few lines."""

import numpy as np
import pytest

from rrl.envs.base import OPTIONAL, FrameRequest
from rrl.envs.mujoco import MuJoCoSim
from rrl.registry import UserError

import mujoco  # isort: skip (after rrl.envs.mujoco, which chooses MuJoCo's renderer)

XML = """<mujoco><worldbody><light pos="0 0 3"/><camera name="side" pos="0 -2 0" xyaxes="1 0 0 0 0 1"/>
<geom name="goal" type="sphere" size="0.1" pos="1 0 0" rgba="1 0 0 1"/>
<body><joint name="hinge" type="hinge" axis="0 1 0"/><geom type="capsule" fromto="0 0 0 0 0 0.5" size="0.05"/></body>
</worldbody><actuator><motor joint="hinge" ctrlrange="-2 4" ctrllimited="true"/></actuator></mujoco>"""


class PoleSim(MuJoCoSim):
    """The goal's height is drawn and stands in the model."""

    def __init__(self, frames=None):
        model = mujoco.MjModel.from_xml_string(XML)
        super().__init__("pole", model, mujoco.MjData(model), 3, "fast", ["side"], frames)

    def _begin(self, given):
        mujoco.mj_resetData(self._model, self._data)
        initial = {"qpos": np.zeros(1), "qvel": self.np_random.normal(size=1), "goal": self.np_random.uniform(size=1)}
        if given is not None:
            initial = self._checked(given, dict.fromkeys(initial, (1,)))
        self._model.geom("goal").pos[2] = initial["goal"][0]
        self._data.qvel[:] = initial["qvel"]
        mujoco.mj_forward(self._model, self._data)
        return initial

    def _advance(self, ctrl):
        self._data.ctrl[:] = ctrl
        mujoco.mj_step(self._model, self._data)
        self._steps += 1
        return 1.0, False, self._steps >= 50, {"success": False}

    def _state(self):
        height = self._model.geom("goal").pos[2]
        return np.array([*self._data.qpos, *self._data.qvel, height], np.float32)

    def _resume(self, state):
        super()._resume(state)
        self._model.geom("goal").pos[2] = self._initial["goal"][0]


def same(one, two):
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name])


def test_a_saved_state_goes_on_bit_for_bit_into_the_next_episode():
    one, two = PoleSim(FrameRequest(24, 32)), PoleSim(FrameRequest(24, 32))
    first = one.reset(seed=1)[0]
    assert first["frames"].shape == (24, 24, 3) and first["frames"].any()
    for _ in range(5):
        last = one.step(np.full(1, 0.3, np.float32))[0]
    state = one.get_state()
    two.reset(seed=2)
    same(two.set_state(state), last)
    same(two.get_state(), state)
    same(one.step(np.ones(1, np.float32))[0], two.step(np.ones(1, np.float32))[0])
    np.testing.assert_array_equal(one.render(), two.render())
    same(one.reset()[0], two.reset()[0])
    same(one.initial(), two.initial())


def test_actions_span_the_actuators_range():
    sim = PoleSim()
    sim.reset(seed=0)
    for action, ctrl in (1, 4), (-1, -2), (0, 1), (7, 4):
        _, _, _, _, info = sim.step(np.full(1, action, np.float32))
        assert sim._data.ctrl[0] == ctrl
    assert info == {"success": False}
    assert len(sim.seconds) == 2 and all(seconds > 0 for seconds in sim.seconds)


def test_initial_states_and_playback():
    one, two = PoleSim(), PoleSim()
    first = one.reset(seed=1)[0]
    same(two.reset(options={"initial": one.initial()})[0], first)
    moved = one.step(np.ones(1, np.float32))[0]
    same(two.show(*one.physics()), moved)
    with pytest.raises(UserError, match="pole has the arrays qpos, qvel, goal; got qpos"):
        two.reset(options={"initial": {"qpos": np.zeros(1)}})
    with pytest.raises(RuntimeError, match="call reset before step"):  # an episode that could not begin
        two.step(np.zeros(1, np.float32))


def test_it_can_do_all_that_is_optional():
    assert all(callable(getattr(PoleSim, name)) for name in (*OPTIONAL, "renderer"))


def test_each_time_that_the_simulator_starts_over_is_told(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its own log here
    sim = PoleSim()
    sim.reset(seed=7)
    still = np.zeros(1, np.float32)
    for unstable in (False, True, False, True):
        if unstable:
            sim._data.qvel[:] = 1e12
        sim.step(still)
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("note:")]
    assert [line.partition(":")[2].split(" (")[0] for line in told] == [
        f" pole was unstable in step {step} of the episode with seed 7" for step in (2, 4)
    ]
    assert all("BADQVEL" in line for line in told)
