"""The Adroit hand tasks (Rajeswaran et al., RSS 2018) in the variants that papers report."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import pydantic

from rrl.envs.adroit_tasks import FLAG_NAMES, JOINTS, TASKS
from rrl.envs.base import ExactSimEnv, Faults, FrameRequest, Look, MuJoCoFactory, Part, Steps, meant
from rrl.envs.joints import JointFaults, Noise
from rrl.registry import Mistake, Parts, register
from rrl.score import Score, success


@register
class Adroit(MuJoCoFactory):
    """Pen, door, hammer and relocate with a 24-joint hand, on gymnasium-robotics' models."""

    class Config(MuJoCoFactory.Config):
        """Which task, and which of its published variants."""

        task: Literal["pen", "door", "hammer", "relocate"]
        """Which task."""
        protocol: Literal["paper", "stock"] = "paper"
        """Task variant: reset ranges, horizon, termination, cameras and colours. `paper`: the RRL authors'
        released environments; `stock`: gymnasium-robotics."""
        reward: Literal["sparse", "dense"] | None = None
        """`sparse`: the protocol's own (paper: with weak shaping in door and hammer; stock: 10 or -0.1);
        `dense`: DAPG's shaped reward. None: sparse for paper, dense for stock."""
        look: Look = "default"
        """Render quality. `default`: the models' own (shadow map 4096, 8 samples); `balanced`: 1024, 4;
        `fast`: no shadows, no smoothing, several times faster. Features differ between looks."""
        state: Literal["joints", "task", "none"] = "joints"
        """What the state vector holds. `joints`: the 24 hand joint angles in rad (paper section 5); `task`:
        the stock state observation, object included (39 to 46 numbers); `none`: nothing."""
        joint_noise: Annotated[float, pydantic.Field(ge=0, le=1)] = 0.0
        """Noise on each of the 24 joint angles in the observation, of which size as `joint_noise_kind` says (paper
        figure 8: 0.02; what its 2 % are of is our reading). At each observation, in training, evaluation and replayed
        demonstrations, as all faults of sensors; the simulation and the pictures know nothing of them."""
        joint_noise_kind: Noise = "gaussian"
        """What `joint_noise` = s means. `gaussian`: Gaussian noise of std s times the joint's range; `multiplicative`:
        the angle times 1 + s times a standard normal number; `uniform`: within s times the joint's range to either
        side."""
        stuck_joints: tuple[str, ...] = ()
        """Joints, such as `WRJ1` or `FFJ3`, whose reading stays what it was as the episode began. Adroit's episodes
        begin with all at 0: without noise, a stuck joint reads as a dead one."""
        dead_joints: tuple[str, ...] = ()
        """Joints whose reading is 0."""
        joint_delay: Annotated[int, pydantic.Field(ge=0, le=1000)] = 0
        """The joint angles in the observation are those of so many steps (10 ms each) ago; before, the episode's first
        ones. Where recorded states are shown instead of stepped: of so many shown states ago."""
        last_action: bool = False
        """Does the state vector end with the last action (where an episode begins: the one that sets all targets to
        0)? The paper's 24 joints are the hand's alone, and where the arm has taken it, above all how high, one camera
        hardly tells; what the arm was told to do does. Not where recorded states are shown instead of stepped."""
        arm_joints: bool = False
        """Do the arm's joints (rad and m; door 4, hammer 2, relocate 6) stand after the hand's 24, as on a robot that
        knows its whole pose? The paper leaves them out. Their sensors have no faults."""
        privileged: bool = False
        """Does the state vector end with the task's state (39 to 46 numbers), for critics in training alone
        (asymmetric actor-critic, Pinto et al. 2018)? The policy goes on seeing what `state` says."""
        cameras: tuple[str, ...] | None = None
        """Cameras to render, in order. None: the protocol's (paper: vil_camera for pen, top for door and
        hammer, cam1 cam2 cam3 for relocate; stock: vil_camera)."""
        horizon: Steps | None = None
        """Agent steps (each of `action_repeat` control steps of 10 ms) per episode. None: the protocol's (200 control
        steps; pen under `paper` 100)."""
        action_repeat: Annotated[int, pydantic.Field(ge=1, le=100)] = 1
        """Control steps for which an action is held, and whose rewards are summed (paper: 1; VRL3: 2). Demonstrations
        are replayed with the means of so many recorded actions. An episode succeeds by as many control steps as ever,
        counted at the end of each agent step."""

        later = frozenset(
            {
                "joint_noise_kind",
                "stuck_joints",
                "dead_joints",
                "joint_delay",
                "last_action",
                "arm_joints",
                "privileged",
                "action_repeat",
            }
        )

        def misfit(self, run: Parts) -> Iterable[Mistake]:
            """A last action that nobody recorded."""
            yield from super().misfit(run)
            if self.last_action and getattr(run.demos, "replay", "actions") == "states":
                yield Mistake(
                    "demos",
                    "Adroit.last_action needs demonstrations that are stepped; recorded states have no actions before "
                    "them",
                    "set DemoSet.replay = 'actions', or leave Adroit.last_action out",
                )

        @pydantic.field_validator("joint_noise", "stuck_joints", "dead_joints", "joint_delay")
        @classmethod
        def _faults_need_joints(cls, value: Any, info: pydantic.ValidationInfo) -> Any:
            state = info.data.get("state", "joints")  # a wrong state is a problem of its own
            if value and state != "joints":
                raise ValueError(f"sensors of joints are read only in state 'joints'; state is {state!r}")
            return value

        @pydantic.field_validator("stuck_joints", "dead_joints")
        @classmethod
        def _known_joints(cls, joints: tuple[str, ...], info: pydantic.ValidationInfo) -> tuple[str, ...]:
            for name in joints:
                if name not in JOINTS:
                    known = f"only {', '.join(JOINTS)}{meant(name.upper(), JOINTS)}"
                    raise ValueError(f"the hand has no joint {name!r}, {known}")
                if (joints + info.data.get("stuck_joints", ())).count(name) > 1:
                    raise ValueError(f"must name each joint once, stuck or dead; got {name} twice")
            return joints

        @pydantic.field_validator("last_action")
        @classmethod
        def _beside_something(cls, value: bool, info: pydantic.ValidationInfo) -> bool:
            if value and info.data.get("state") == "none":
                raise ValueError("stands beside joints or the task's state; state is 'none'")
            return value

        @pydantic.field_validator("arm_joints")
        @classmethod
        def _beside_the_hands(cls, value: bool, info: pydantic.ValidationInfo) -> bool:
            if value and info.data.get("task") == "pen":
                raise ValueError("pen's hand has no arm")
            if value and (state := info.data.get("state", "joints")) != "joints":
                raise ValueError(f"stand beside the hand's, in state 'joints'; state is {state!r}")
            return value

        @pydantic.field_validator("privileged")
        @classmethod
        def _not_shown_anyway(cls, value: bool, info: pydantic.ValidationInfo) -> bool:
            if value and info.data.get("state") == "task":
                raise ValueError("state 'task' shows the task's state to policies too; leave one of the two out")
            return value

        @pydantic.field_validator("cameras")
        @classmethod
        def _known_cameras(
            cls, cameras: tuple[str, ...] | None, info: pydantic.ValidationInfo
        ) -> tuple[str, ...] | None:
            if cameras is None or not {"task", "protocol"} <= set(info.data):
                return cameras  # a wrong task or protocol is a problem of its own
            task, protocol = info.data["task"], info.data["protocol"]
            known = TASKS[task].cameras(protocol)
            if not cameras:
                raise ValueError(f"must name at least one camera: {', '.join(known)}")
            if unknown := [name for name in cameras if name not in known]:
                only = f"only {', '.join(known)}{''.join(meant(name, known) for name in unknown)}"
                raise ValueError(
                    f"{task} has no camera {' and no '.join(map(repr, unknown))} under protocol {protocol!r}, {only}"
                )
            if len(set(cameras)) < len(cameras):
                raise ValueError(f"must name each camera once; got {', '.join(cameras)}")
            return cameras

        def label(self) -> str:
            """The task."""
            return self.task

    config: Config
    packages = (*MuJoCoFactory.packages, "gymnasium-robotics")
    oracle = "Adroit.state = 'task'"
    proprioception = "Adroit.state = 'joints'"
    variant = ("protocol", "action_repeat")

    @classmethod
    def tasks(cls) -> dict[str, dict[str, Any]]:
        return {f"adroit_{task}": {"task": task} for task in TASKS}

    @classmethod
    def of_spec(cls, spec: Mapping[str, Any]) -> Adroit.Config | None:
        """The task of gymnasium-robotics' own environments, such as AdroitHandDoor-v1."""
        named = re.fullmatch(r"AdroitHand([A-Z][a-z]+)(Sparse|Dense)?-v\d+", str(spec.get("id")))
        return cls.Config.of({"task": named[1].lower()}) if named and named[1].lower() in TASKS else None

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._task = TASKS[config.task]

    @property
    def name(self) -> str:
        return f"adroit_{self.config.task}"

    @property
    def protocol(self) -> str:
        return self.config.protocol

    @property
    def reward(self) -> str:
        """`sparse` or `dense`, the protocol's default filled in."""
        return self.config.reward or {"paper": "sparse", "stock": "dense"}[self.config.protocol]

    @property
    def horizon(self) -> int:
        return self.config.horizon or math.ceil(self._task.horizons[self.config.protocol] / self.action_repeat)

    @property
    def action_repeat(self) -> int:
        return self.config.action_repeat

    @property
    def cameras(self) -> tuple[str, ...]:
        return self.config.cameras or self._task.default_cameras[self.config.protocol]

    @property
    def flags(self) -> tuple[str, ...]:
        """`success`: the stock rule; `success_rrl`: the RRL authors' released environments."""
        return FLAG_NAMES

    @property
    def score(self) -> Score:
        return success(FLAG_NAMES[0], self._task.success_steps // self.action_repeat)

    @property
    def parts(self) -> tuple[Part, ...]:
        parts = {"task": self._task.parts, "joints": (Part("hand joints", 24, robot=True),), "none": ()}
        arm = (Part("arm joints", self._task.joints.start, robot=True),) if self.config.arm_joints else ()
        # One actuator for each joint of the hand and of the arm before it.
        last = (Part("last action", self._task.joints.stop, robot=True),) if self.config.last_action else ()
        privileged = tuple(replace(part, privileged=True) for part in self._task.parts * self.config.privileged)
        return parts[self.config.state] + arm + last + privileged

    def settings(self) -> dict[str, str]:
        c = self.config
        kind = c.joint_noise_kind if c.joint_noise and c.joint_noise_kind != "gaussian" else ""
        unusual = {
            "joint_noise": c.joint_noise,
            "joint_noise_kind": kind,
            "stuck_joints": ", ".join(c.stuck_joints),
            "dead_joints": ", ".join(c.dead_joints),
            "joint_delay": c.joint_delay,
            "last_action": c.last_action,
            "arm_joints": c.arm_joints,
            "privileged": c.privileged,
            "action_repeat": c.action_repeat if c.action_repeat > 1 else 0,
        }
        # What is as ever changes no key of features already cached.
        told = {name: str(value) for name, value in unusual.items() if value}
        return super().settings() | {"reward": self.reward} | told

    def faults(self) -> Faults | None:
        if self.config.state != "joints":
            return None
        kinds = ("gaussian", "multiplicative", "uniform")
        return Faults(
            noise="joint_noise",
            noise_kinds={f"{kind} noise": {"joint_noise_kind": kind} for kind in kinds},
            stuck="stuck_joints",
            dead="dead_joints",
            delay="joint_delay",
            few=("WRJ1", "FFJ3", "THJ4"),
        )

    def make_one(self, frames: FrameRequest | None) -> ExactSimEnv:
        from rrl.envs.adroit_sim import AdroitSim, Senses

        c = self.config
        faults = JointFaults(c.joint_noise, c.joint_noise_kind, c.stuck_joints, c.dead_joints, c.joint_delay)
        senses = Senses(c.state, faults, c.arm_joints, c.last_action, c.privileged)
        settings = (c.task, c.protocol, self.reward, c.look, senses, self.cameras, self.horizon, c.action_repeat)
        return AdroitSim(*settings, frames)
