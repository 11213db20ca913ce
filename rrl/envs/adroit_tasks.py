"""The four Adroit tasks: observations, rewards, goal flags, resets, cameras. No MuJoCo, only numpy.

A task object reads its quantities from one simulator through views of the simulator's memory, so nothing is
copied or looked up per step. Positions lag the joint angles by one 2 ms substep after a step, as in the
original environments, which do not run the kinematics again.

Sources: observations and dense rewards are those of mj_envs (Rajeswaran et al., RSS 2018); `sparse` rewards,
`success_rrl` flags and cameras are those of the RRL authors' released environments. Lengths in m, angles in
rad, velocities per s.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rrl.envs.base import Part

Vector = NDArray[np.float64]
Flags = tuple[bool, bool]
FLAG_NAMES = ("success", "success_rrl")
JOINTS = (
    *("WRJ1", "WRJ0"),
    *(f"{finger}J{i}" for finger in ("FF", "MF", "RF") for i in (3, 2, 1, 0)),
    *(f"{finger}J{i}" for finger in ("LF", "TH") for i in (4, 3, 2, 1, 0)),
)
"""The models' names of the 24 hand joints, in the order of `Task.joints`: wrist, four fingers, thumb."""


@dataclass(frozen=True)
class Camera:
    """A fixed camera: position in m and orientation quaternion (w, x, y, z). Field of view 45 degrees."""

    pos: tuple[float, float, float]
    quat: tuple[float, float, float, float]


STOCK_CAMERAS = ("fixed", "vil_camera")
DOWN_45 = (0.92388, 0.382683, 0.0, 0.0)


class Task(abc.ABC):
    """One task, bound to the simulator that it reads (`mujoco.MjModel`, `mujoco.MjData`)."""

    xml: ClassVar[str]
    """File of gymnasium_robotics that describes the scene."""
    joints: ClassVar[slice]
    """Where qpos holds the 24 hand joints: wrist and fingers, without the arm's."""
    state_dim: ClassVar[int]
    parts: ClassVar[tuple[Part, ...]]
    """What the numbers of `state` are."""
    action_dim: ClassVar[int]
    quantities: ClassVar[dict[str, int]]
    """What a reset randomises, with the number of its values; names as in mj_envs' saved states."""
    horizons: ClassVar[dict[str, int]] = {"paper": 200, "stock": 200}
    success_steps: ClassVar[int] = 25
    stock_cameras: ClassVar[tuple[str, ...]] = STOCK_CAMERAS
    paper_cameras: ClassVar[dict[str, Camera]]
    """Cameras that the paper's protocol adds or moves."""
    default_cameras: ClassVar[dict[str, tuple[str, ...]]]

    def __init__(self, model: Any, data: Any) -> None:
        self.model = model
        self.qpos: Vector = data.qpos
        self.qvel: Vector = data.qvel

    @classmethod
    def cameras(cls, protocol: str) -> tuple[str, ...]:
        """Names of all cameras under a protocol."""
        extra = cls.paper_cameras if protocol == "paper" else {}
        return tuple(dict.fromkeys((*cls.stock_cameras, *extra)))

    @abc.abstractmethod
    def draw(self, rng: np.random.Generator, protocol: str) -> dict[str, Vector]:
        """Draw the randomised quantities of an episode."""

    @abc.abstractmethod
    def place(self, values: dict[str, Vector]) -> None:
        """Write the randomised quantities into the model."""

    @abc.abstractmethod
    def state(self) -> Vector:
        """The task's stock state observation, float64 [state_dim]."""

    @abc.abstractmethod
    def flags(self) -> Flags:
        """Goal reached? By the stock rule, and by the rule of the RRL authors' released environments."""

    @abc.abstractmethod
    def sparse(self) -> float:
        """The paper's reward (its `sparse` keeps weak shaping in door and hammer)."""

    @abc.abstractmethod
    def dense(self) -> float:
        """The shaped reward of DAPG."""

    def stock_sparse(self) -> float:
        """gymnasium-robotics' sparse reward."""
        return 10.0 if self.flags()[0] else -0.1

    def failed(self) -> bool:
        """True if the task can no longer succeed; ends the episode under the paper's protocol."""
        return False


class Pen(Task):
    """Turn a pen in the hand until it points like the target pen."""

    xml = "adroit_pen.xml"
    joints = slice(0, 24)
    state_dim = 45
    parts = (
        Part("hand joints", 24, robot=True),
        Part("pen position", 3),
        Part("pen velocity", 3, rate=True),
        Part("pen angular velocity", 3, rate=True),
        Part("pen axis", 3),
        Part("target axis", 3),
        Part("pen to goal", 3),
        Part("axis to target axis", 3),
    )
    action_dim = 24
    quantities: ClassVar = {"desired_orien": 4}
    horizons: ClassVar = {"paper": 100, "stock": 200}
    success_steps = 20
    stock_cameras = (*STOCK_CAMERAS, "view_1", "view_2", "view_3", "view_4", "view_5")
    paper_cameras: ClassVar = {"vil_camera": Camera((0.0, -0.8, 0.8), DOWN_45)}
    default_cameras: ClassVar = {"paper": ("vil_camera",), "stock": ("vil_camera",)}
    length = 0.13
    """Distance of the sites at a pen's ends."""

    def __init__(self, model: Any, data: Any) -> None:
        super().__init__(model, data)
        self.pen: Vector = data.body("Object").xpos
        self.goal: Vector = data.site("eps_ball").xpos
        self.pen_ends = (data.site("object_top").xpos, data.site("object_bottom").xpos)
        self.target_ends = (data.site("target_top").xpos, data.site("target_bottom").xpos)
        self.target_quat: Vector = model.body("target").quat

    def draw(self, rng: np.random.Generator, protocol: str) -> dict[str, Vector]:
        x, y = rng.uniform(-1.0, 1.0, 2) / 2  # half angles: the target turns by x, then y, about fixed axes
        quat = [
            math.cos(y) * math.cos(x),
            math.cos(y) * math.sin(x),
            math.sin(y) * math.cos(x),
            math.sin(y) * math.sin(x),
        ]
        return {"desired_orien": np.array(quat)}

    def place(self, values: dict[str, Vector]) -> None:
        self.target_quat[:] = values["desired_orien"]

    def axes(self) -> tuple[Vector, Vector]:
        """Unit vectors along the pen and along the target pen."""
        pen = (self.pen_ends[0] - self.pen_ends[1]) / self.length
        return pen, (self.target_ends[0] - self.target_ends[1]) / self.length

    def state(self) -> Vector:
        pen, target = self.axes()
        parts = (self.qpos[:-6], self.pen, self.qvel[-6:], pen, target, self.pen - self.goal, pen - target)
        return np.concatenate(parts)

    def errors(self) -> tuple[float, float]:
        """Distance to the goal position, and cosine of the angle between pen and target."""
        pen, target = self.axes()
        return math.dist(self.pen, self.goal), float(pen @ target)

    def flags(self) -> Flags:
        distance, cosine = self.errors()
        return distance < 0.075 and cosine > 0.95, cosine > 0.95

    def sparse(self) -> float:
        return 50.0 if self.flags()[0] else 0.0

    def dense(self) -> float:
        distance, cosine = self.errors()
        near = distance < 0.075
        bonus = 10.0 * (near and cosine > 0.9) + 50.0 * (near and cosine > 0.95)
        return -distance + cosine + bonus - 5.0 * self.failed()

    def failed(self) -> bool:
        """The pen was dropped: it is below 0.075 m."""
        return bool(self.pen[2] < 0.075)


class Door(Task):
    """Undo the latch and swing the door open."""

    xml = "adroit_door.xml"
    joints = slice(4, 28)
    state_dim = 39
    parts = (
        Part("arm and hand joints", 27, robot=True),
        Part("latch", 1),
        Part("door hinge", 1),
        Part("palm position", 3, robot=True),
        Part("handle position", 3),
        Part("palm to handle", 3),
        Part("door is open", 1),
    )
    action_dim = 28
    quantities: ClassVar = {"door_body_pos": 3}
    paper_cameras: ClassVar = {"top": Camera((0.0, 0.0, 1.5), (0.000796, 0.0, 0.0, 1.0))}
    default_cameras: ClassVar = {"paper": ("top",), "stock": ("vil_camera",)}

    def __init__(self, model: Any, data: Any) -> None:
        super().__init__(model, data)
        self.hinge: Vector = data.joint("door_hinge").qpos  # [1]
        self.palm: Vector = data.site("S_grasp").xpos
        self.handle: Vector = data.site("S_handle").xpos
        self.frame: Vector = model.body("frame").pos

    def draw(self, rng: np.random.Generator, protocol: str) -> dict[str, Vector]:
        return {"door_body_pos": rng.uniform([-0.3, 0.25, 0.252], [-0.2, 0.35, 0.35])}

    def place(self, values: dict[str, Vector]) -> None:
        self.frame[:] = values["door_body_pos"]

    def state(self) -> Vector:
        is_open = 1.0 if self.hinge[0] > 1.0 else -1.0
        latch = self.qpos[-1:]
        away = self.palm - self.handle
        parts = (self.qpos[1:-2], latch, self.hinge, self.palm, self.handle, away, [is_open])
        return np.concatenate(parts)

    def flags(self) -> Flags:
        angle = float(self.hinge[0])
        return angle >= 1.35, angle > 1.4

    def sparse(self) -> float:
        angle = float(self.hinge[0])
        bonus = 2.0 * (angle > 0.2) + 8.0 * (angle > 1.0) + 10.0 * (angle > 1.35)
        return -0.1 * (angle - 1.57) ** 2 + bonus

    def dense(self) -> float:
        reach = -0.1 * math.dist(self.palm, self.handle)
        return self.sparse() + reach - 1e-5 * float(self.qvel @ self.qvel)


class Hammer(Task):
    """Pick up the hammer and drive the nail into the board."""

    xml = "adroit_hammer.xml"
    joints = slice(2, 26)
    state_dim = 46
    parts = (
        Part("arm and hand joints", 26, robot=True),
        Part("nail depth", 1),
        Part("hammer velocity", 3, rate=True),
        Part("hammer angular velocity", 3, rate=True),
        Part("palm position", 3, robot=True),
        Part("hammer position", 3),
        Part("hammer angles", 3),
        Part("nail position", 3),
        Part("force on the nail", 1),
    )
    action_dim = 26
    quantities: ClassVar = {"board_pos": 3}
    paper_cameras: ClassVar = {"top": Camera((0.0, 0.0, 1.1), (0.000796, 0.0, 0.0, 1.0))}
    default_cameras: ClassVar = {"paper": ("top",), "stock": ("vil_camera",)}

    def __init__(self, model: Any, data: Any) -> None:
        super().__init__(model, data)
        self.palm: Vector = data.site("S_grasp").xpos
        self.hammer: Vector = data.body("Object").xpos
        self.hammer_turn: Vector = data.body("Object").xmat  # [9]
        self.head: Vector = data.site("tool").xpos
        self.nail: Vector = data.site("S_target").xpos
        self.goal: Vector = data.site("nail_goal").xpos
        self.touch: Vector = data.sensor("S_nail").data  # [1]
        self.board: Vector = model.body("nail_board").pos

    def draw(self, rng: np.random.Generator, protocol: str) -> dict[str, Vector]:
        x, y, _ = self.board
        return {"board_pos": np.array([x, y, rng.uniform(0.1, 0.25)])}

    def place(self, values: dict[str, Vector]) -> None:
        self.board[:] = values["board_pos"]

    def state(self) -> Vector:
        parts = (
            self.qpos[:-6],
            self.qvel[-6:].clip(-1.0, 1.0),
            self.palm,
            self.hammer,
            euler(self.hammer_turn),
            self.nail,
            self.touch.clip(-1.0, 1.0),
        )
        return np.concatenate(parts)

    def flags(self) -> Flags:
        driven = math.dist(self.nail, self.goal) < 0.010
        return driven, driven

    def sparse(self) -> float:
        distance = math.dist(self.nail, self.goal)
        return -10.0 * distance + 25.0 * (distance < 0.020) + 75.0 * (distance < 0.010)

    def dense(self) -> float:
        reach = -0.1 * math.dist(self.palm, self.hammer) - math.dist(self.head, self.nail)
        speed = math.sqrt(float(self.qvel @ self.qvel))
        lifted = bool(self.hammer[2] > 0.04 and self.head[2] > 0.04)
        return self.sparse() + reach - 0.01 * speed + 2.0 * lifted


class Relocate(Task):
    """Carry the ball to the target in the air."""

    xml = "adroit_relocate.xml"
    joints = slice(6, 30)
    state_dim = 39
    parts = (
        Part("arm and hand joints", 30, robot=True),
        Part("palm to ball", 3),
        Part("palm to target", 3),
        Part("ball to target", 3),
    )
    action_dim = 30
    quantities: ClassVar = {"obj_pos": 3, "target_pos": 3}
    paper_cameras: ClassVar = {
        "cam1": Camera((0.0, -0.04, -1.0), (0.0, -0.000796, 1.0, 0.000796)),
        "cam2": Camera((0.0, 0.8, 0.2), (0.00056, -0.00056, 0.70682, 0.70739)),
        "cam3": Camera((0.8, 0.0, 0.2), (0.5004, 0.4996, 0.5, 0.5)),
    }
    default_cameras: ClassVar = {"paper": ("cam1", "cam2", "cam3"), "stock": ("vil_camera",)}

    def __init__(self, model: Any, data: Any) -> None:
        super().__init__(model, data)
        self.palm: Vector = data.site("S_grasp").xpos
        self.ball: Vector = data.body("Object").xpos
        self.target: Vector = data.site("target").xpos
        self.ball_start: Vector = model.body("Object").pos
        self.target_site: Vector = model.site("target").pos

    def draw(self, rng: np.random.Generator, protocol: str) -> dict[str, Vector]:
        x, y = rng.uniform([-0.15, -0.15], [0.15, 0.3])
        target = rng.uniform([-0.2, -0.2, 0.15], [0.2, 0.2, 0.35])
        if protocol == "paper":
            target[2] = 0.25
        return {"obj_pos": np.array([x, y, self.ball_start[2]]), "target_pos": target}

    def place(self, values: dict[str, Vector]) -> None:
        self.ball_start[:] = values["obj_pos"]
        self.target_site[:] = values["target_pos"]

    def state(self) -> Vector:
        palm, ball, target = self.palm, self.ball, self.target
        return np.concatenate((self.qpos[:-6], palm - ball, palm - target, ball - target))

    def flags(self) -> Flags:
        there = math.dist(self.ball, self.target) < 0.1
        return there, there

    def sparse(self) -> float:
        distance = math.dist(self.ball, self.target)
        return 10.0 * (distance < 0.1) + 20.0 * (distance < 0.05)

    def dense(self) -> float:
        reward = self.sparse() - 0.1 * math.dist(self.palm, self.ball)
        if self.ball[2] > 0.04:  # off the table
            reward += 1.0 - 0.5 * math.dist(self.palm, self.target) - 0.5 * math.dist(self.ball, self.target)
        return reward


def euler(turn: Vector) -> Vector:
    """Euler angles [3] of a rotation matrix given as its 9 numbers, in mj_envs' convention."""
    cosine = math.hypot(turn[8], turn[5])
    y = -math.atan2(-turn[2], cosine)
    if cosine > 4 * np.finfo(np.float64).eps:
        return np.array([-math.atan2(turn[5], turn[8]), y, -math.atan2(turn[1], turn[0])])
    return np.array([0.0, y, -math.atan2(-turn[3], turn[4])])


TASKS: dict[str, type[Task]] = {"pen": Pen, "door": Door, "hammer": Hammer, "relocate": Relocate}
