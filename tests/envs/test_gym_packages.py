"""Known faults of other packages' environments: there, and mended without a touch of MuJoCo."""

import importlib.util
import sys
from types import SimpleNamespace

import mujoco
import numpy as np
import pytest

from rrl.envs import gym_packages
from rrl.registry import UserError

ARM = """<mujoco><worldbody>
<body name="held" mocap="true"/>
<body name="hand"><joint name="robot:bend" type="hinge" range="-1 1"/><geom size=".1"/></body>
</worldbody><equality><weld body1="held" body2="hand"/></equality></mujoco>"""


@pytest.fixture
def fresh(monkeypatch):
    """A module as the package has it, whatever was mended in this process."""

    def load(name):
        spec = importlib.util.find_spec(name)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def arm():
    model = mujoco.MjModel.from_xml_string(ARM)
    return SimpleNamespace(model=model, data=mujoco.MjData(model))


def test_gymnasium_robotics_knows_no_hinge_until_it_is_mended(fresh, arm):
    """Once this fails at its first lines, the fault is gone and what mends it can go too."""
    used = fresh("gymnasium_robotics.utils.mujoco_utils")
    with pytest.raises(AssertionError):
        used.get_joint_qpos(arm.model, arm.data, "robot:bend")
    arm.data.qpos[0] = 0.3
    gym_packages.mend("gymnasium_robotics")
    assert used.get_joint_qpos(arm.model, arm.data, "robot:bend") == [0.3]
    mended = used.mujoco
    gym_packages.mend("gymnasium_robotics")
    assert used.mujoco is mended and mended.mj_step is mujoco.mj_step
    assert sys.modules["mujoco"] is mujoco and mujoco.mjtJoint.mjJNT_HINGE != np.int32(3), "MuJoCo itself was changed"


def test_meta_world_can_set_no_weld_until_it_is_mended(fresh, arm):
    """As above."""
    base = fresh("metaworld.sawyer_xyz_env").SawyerMocapBase
    compiled = arm.model.eq_data.copy()
    with pytest.raises(ValueError, match="broadcast"):
        base.reset_mocap_welds(arm)
    np.testing.assert_array_equal(arm.model.eq_data, compiled)
    gym_packages.mend("metaworld")
    base.reset_mocap_welds(arm)
    assert arm.model.eq_data[0, :11].tolist() == [0, 0, 0, 0, 0, 0, -1, 0, 0, 0, 5]  # as its source has them
    assert arm.model.eq_data[0, 11] == compiled[0, 11]


def test_what_brings_a_missing_package_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "metaworld", None)
    with pytest.raises(UserError, match=r"needs the module metaworld, .*\npip install 'rrl\[metaworld\]'"):
        gym_packages.spec_of("metaworld:Meta-World/MT1")
