"""What every environment factory and every simulated environment offers.

Nothing here imports torch or a simulator at run time: `rrl list` reads it, and so do worker processes, which
never need torch.
"""

from __future__ import annotations

import abc
import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, Self

import numpy as np
import pydantic
from numpy.typing import NDArray

from rrl import registry
from rrl.registry import Component, Mistake, Parts, UserError
from rrl.score import RETURN, Score

if TYPE_CHECKING:
    from rrl.envs.scene import Scene

Arrays = Mapping[str, NDArray[Any]]
Look = Literal["default", "balanced", "fast"]
"""Render quality of MuJoCo's environments; `rrl.envs.render` says what each means."""
Steps = Annotated[int, pydantic.Field(ge=1, le=1_000_000)]
"""Of an episode: the noise on all of its actions is drawn before it begins."""


def meant(name: str, known: Iterable[str], quote: str = "'") -> str:
    """`; did you mean 'door'?`, or nothing if no known name is like it."""
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {quote}{near[0]}{quote}?" if near else ""


@dataclass(frozen=True)
class FrameRequest:
    """The pictures that an encoder asks an environment to render.

    `size` is the side in pixels of the square frame; it shows the centre `size / crop_from` of what
    a picture of side `crop_from` would show (224 of 256 equals the usual centre crop, without
    rendering the pixels that the crop throws away). `stack` frames are given at once, oldest first.
    """

    size: int
    crop_from: int
    stack: int = 1


@dataclass(frozen=True)
class Part:
    """Neighbouring numbers of a state vector that belong together, in one unit."""

    name: str
    """Such as `door hinge`."""
    size: int
    robot: bool = False
    """Of the robot itself, not of what it works on?"""
    rate: bool = False
    """A velocity, which no single picture shows?"""
    privileged: bool = False
    """For critics in training alone? Such parts end a state vector."""


@dataclass(frozen=True)
class Faults:
    """The settings, fields of a `Config`, that put the sensors of joints at fault; empty: it has none of this kind. At
    its default each means that nothing is."""

    noise: str = ""
    """Field of the size of noise."""
    noise_kinds: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"noise": {}})
    """Per kind of noise, by what people call it, such as `uniform noise`: what else chooses it."""
    stuck: str = ""
    """Field of the names of joints whose reading stays what it was as the episode began."""
    dead: str = ""
    """Field of the names of joints whose reading is 0."""
    delay: str = ""
    """Field of the number of steps by which readings are late."""
    few: tuple[str, ...] = ()
    """Some joints that stand for all."""


class EnvFactory(Component, abc.ABC):
    """Makes the simulated environments of one task. Cheap to construct; picklable through its config.

    A new task writes `make_one`, `cameras`, `horizon` and, unless it is judged by the return, `score` (class attributes
    will do); everything else has defaults.
    """

    kind: ClassVar[str] = "environment"

    class Config(Component.Config):
        """Settings shared by all environments: none. `label` is the task as reports call it, such as `door`."""

        def misfit(self, run: Parts) -> Iterable[Mistake]:
            """Pictures that this environment does not draw."""
            env: EnvFactory = registry.build(self)
            if run.encoder.frames() is not None and not env.cameras:
                message = f"{run.encoder.component.__name__} needs pictures, and {env.name} has no cameras"
                yield Mistake("encoder", message, "take an encoder that needs none")

        @classmethod
        def of(cls, settings: Mapping[str, Any]) -> Self:
            """The configuration with these settings; UserError says what is wrong with them."""
            fields = cls.model_fields
            if unknown := [name for name in settings if name not in fields]:
                raise UserError(f"{cls.component.__name__} has no setting {unknown[0]!r}; it takes {', '.join(fields)}")
            from rrl.config import refusals  # not for worker processes, which check nothing

            return refusals.checked(cls, settings)

        def whole(self) -> Self:
            """The same task with all that it can observe in the state vector; as it is, where there is no such
            choice."""
            return self

        def filmed(self, cameras: Sequence[str], look: str) -> Self:
            """The same task for a film: through these cameras, as a user names them (none: the configured ones),
            in this look. UserError if the environment has no such choice."""
            asked = {"cameras": tuple(cameras)} if cameras else {}
            if look != "default" or "look" in type(self).model_fields:
                asked["look"] = look  # type: ignore[assignment]
            return self.of({**dict(self), **asked})

    def __init__(self, config: Component.Config) -> None:
        self.config = config

    packages: ClassVar[tuple[str, ...]] = ()
    """Distributions that decide what the simulator computes: their versions are facts, `rrl doctor` shows them."""
    visual: ClassVar[frozenset[str]] = frozenset()
    """Settings that decide how pictures look and nothing else: runs without pictures may differ in them."""
    proprioception: ClassVar[str] = ""
    """The binding with which the state vector holds the robot alone, such as `Adroit.state = 'joints'`. Empty if there
    is none."""
    oracle: ClassVar[str] = ""
    """The binding with which the state vector holds the task's objects, such as `Adroit.state = 'task'`: what an
    error may propose. Empty if there is none."""
    variant: ClassVar[tuple[str, ...]] = ()
    """Settings that choose a variant of a task and stand among its facts by the same name: with them, the
    environment of recorded episodes is found again."""

    generic: ClassVar[bool] = False
    """Does it take whatever no other environment claims?"""

    @classmethod
    def tasks(cls) -> Mapping[str, Mapping[str, Any]]:
        """The tasks that commands find by name: per `name` the settings that choose it; by default one task, and
        none where a setting has no default."""
        required = any(field.is_required() for field in cls.Config.model_fields.values())
        return {} if required else {cls(cls.Config()).name: {}}

    @classmethod
    def of_task(cls, task: str, **settings: Any) -> EnvFactory.Config | None:
        """The configuration of a task that goes by this name (`adroit_door`, or without the family: `door`), with
        these settings; None if there is no such task. UserError if a setting does not exist or does not fit."""
        wanted = "_".join(task.split())
        for name, chosen in cls.tasks().items():
            if wanted in (name, _short(name)):
                return cls.Config.of({**chosen, **settings})
        return None

    @classmethod
    def of_recorded(cls, facts: Mapping[str, Any], **settings: Any) -> EnvFactory.Config | None:
        """The configuration of the task and variant that have these `facts()`, with other settings on top; None if
        this environment has no such task."""
        task = str(facts["env"])
        if task not in cls.tasks():
            return None
        variant = {name: str(facts[name]) for name in cls.variant if name in facts}
        values = {name: int(text) if text.isdecimal() else text for name, text in variant.items()}
        return cls.of_task(task, **{**values, **settings})

    @classmethod
    def of_spec(cls, spec: Mapping[str, Any]) -> EnvFactory.Config | None:
        """The configuration of the task that other people recorded in the environment of gymnasium that `spec`
        describes (`gymnasium.envs.registration.EnvSpec` as JSON: `id`, `kwargs`, ...); None: it is none of these.
        What a file says decides here: import nothing for it but packages of environments. UserError if the
        environment can't be had."""
        return None

    @property
    def name(self) -> str:
        """A family and the task, such as `adroit_door`: demonstrations and caches are told apart by it."""
        family, label = type(self).__name__, self.config.label()
        return family.lower() + ("" if label == family else "_" + "_".join(label.split()))

    @property
    def protocol(self) -> str:
        """The task variant, such as `paper`: reset ranges, horizon, termination, appearance. Empty: there is one."""
        return ""

    @property
    @abc.abstractmethod
    def horizon(self) -> int:
        """Agent steps after which an episode is truncated."""

    @property
    def action_repeat(self) -> int:
        """Control steps of one agent step, which is one `step` here: the same action is applied this often
        and the rewards are summed. Environment steps are counted before action repeat."""
        return 1

    @property
    @abc.abstractmethod
    def cameras(self) -> tuple[str, ...]:
        """Cameras in the order in which their frames are concatenated on the channel axis."""

    @property
    def score(self) -> Score:
        """What the task is judged by; without a success test the return."""
        return RETURN

    @property
    def flags(self) -> tuple[str, ...]:
        """Names of the boolean goal flags that every step reports in `info`; the first one is the score's."""
        return (self.score.name,) if self.score.counted else ()

    @property
    def blind_state(self) -> bool:
        """True if the state vector says nothing of the task's objects (joints only): a policy without
        pictures is then a blind one."""
        return False

    @property
    def has_state(self) -> bool:
        """False if the state vector is empty."""
        return True

    @property
    def parts(self) -> tuple[Part, ...]:
        """What the numbers of the state vector are, in order; empty: nobody says."""
        return ()

    @property
    def privileged(self) -> int:
        """How many numbers at the state vector's end only critics may see."""
        return sum(part.size for part in self.parts if part.privileged)

    def for_critics(self) -> dict[str, int]:
        """What an agent's constructor is told of that, if there is any: most agents don't know the word."""
        return {"privileged": self.privileged} if self.privileged else {}

    def faults(self) -> Faults | None:
        """How the sensors of its joints can fail; None: it has no such settings, or observes no joints."""
        return None

    def at_fault(self) -> list[str]:
        """What its policies lack of the joints' angles, in words such as `uniform noise 0.02` and `stuck FFJ3`."""
        faults = self.faults()
        if faults is None:
            return ["vision only"] if self.proprioception and not self.has_state else []
        held = dict(self.config)

        def chosen(kind: Mapping[str, Any]) -> bool:
            return all(held[name] == value for name, value in kind.items())

        size, steps = held.get(faults.noise), held.get(faults.delay)
        said = [f"{kind} {size:g}" for kind, settings in faults.noise_kinds.items() if size and chosen(settings)]
        for fault, setting in (("stuck", faults.stuck), ("dead", faults.dead)):
            said += [f"{fault} {joint}" for joint in held.get(setting, ())]
        return said + ([f"delay {steps}"] if steps else [])

    def settings(self) -> dict[str, str]:
        """What `facts` say of the configuration: all of it, unless an environment says it better."""
        return {name: str(value) for name, value in self.config}

    def facts(self) -> dict[str, str]:
        """What a run's tags and a feature cache's key must say: what decides observations and rewards."""
        facts = {**self.settings(), "env": self.name, "protocol": self.protocol, "cameras": ",".join(self.cameras)}
        facts |= {"horizon": str(self.horizon)} | {name: version(name) for name in self.packages}
        return {name: value for name, value in facts.items() if value}

    @abc.abstractmethod
    def make_one(self, frames: FrameRequest | None) -> SimEnv:
        """One environment in this process. None: it renders nothing."""

    def probe(self, frames: FrameRequest | None) -> None:
        """UserError for what only the simulator can refuse: asked before a run is begun."""

    def action_range(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """(lowest, highest) [m] of the numbers of an action as other people give it to this environment; None:
        [-1, 1], as here."""
        return None

    def starts(
        self, told: Sequence[Mapping[str, Any]], seen: Sequence[NDArray[np.float64] | None]
    ) -> tuple[list[dict[str, NDArray[np.float64]]], str] | None:
        """How other people's episodes begin here, as `reset` takes it, and in words what that rests on. `told` is what
        was recorded of each one's start (`qpos`, `seed`, ...), `seen` its first observation. None: `told` holds what
        `initial` gives. UserError if an episode can't begin as it did."""
        return None


class MuJoCoFactory(EnvFactory):
    """Makes `rrl.envs.mujoco.MuJoCoSim`s. Its Config has the fields `look` (a `Look`) and `state`, where `task` means
    that the state vector holds the task's objects, and `none` that it is empty."""

    packages: ClassVar[tuple[str, ...]] = ("mujoco",)
    visual: ClassVar[frozenset[str]] = frozenset({"look"})
    config: Any

    @property
    def blind_state(self) -> bool:
        return bool(self.config.state != "task")

    @property
    def has_state(self) -> bool:
        return bool(self.config.state != "none")

    def settings(self) -> dict[str, str]:
        return {"look": self.config.look, "state": self.config.state}

    @abc.abstractmethod
    def make_one(self, frames: FrameRequest | None) -> ExactSimEnv: ...

    def probe(self, frames: FrameRequest | None) -> None:
        from rrl.envs import gl

        if frames is not None:
            gl.need()


def task_names() -> list[str]:
    """The tasks of all registered environments, without their families, such as `door`."""
    return [_short(name) for factory in _factories() for name in factory.tasks()]


def find_task(task: str, **settings: Any) -> EnvFactory.Config:
    """The configuration of the task that goes by this name, as `EnvFactory.of_task` understands it, in whichever
    environment has it. UserError if none has it or a setting does not fit."""
    for factory in _factories():
        if (config := factory.of_task(task, **settings)) is not None:
            return config
    known = task_names()
    raise UserError(f"no environment has a task {task!r}{meant(task, known)} (one of {', '.join(known)})")


def find_recorded(facts: Mapping[str, Any], **settings: Any) -> EnvFactory.Config:
    """The configuration of the task and variant that have these `facts()`, with other settings on top. UserError
    if no environment has the task."""
    for factory in _factories():
        if (config := factory.of_recorded(facts, **settings)) is not None:
            return config
    raise UserError(f"this version of rrl has no environment {facts['env']}")


def find_spec(spec: Mapping[str, Any]) -> EnvFactory.Config:
    """The configuration of the task that `EnvFactory.of_spec` finds, in whichever environment has it. UserError if
    none has it."""
    for factory in _factories():
        if (config := factory.of_spec(spec)) is not None:
            return config
    raise UserError(f"there is no environment here for what was recorded in {spec.get('id')}")


def _short(name: str) -> str:
    return name.partition("_")[2] or name


def _factories() -> list[type[EnvFactory]]:
    """rrl's own first: what is installed beside it takes no name from them. Last what takes anything."""
    found = [cls for name in registry.names("environment") if issubclass(cls := registry.get(name), EnvFactory)]
    return sorted(found, key=lambda cls: (cls.generic, cls.__module__.partition(".")[0] != "rrl"))


RESET_OPTIONS = "options/"
"""How names of arrays of an initial state begin that stand for options of an environment's own reset; groups of them
are parted by `/` too."""


def reset_options(initial: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the environment's own reset among the arrays of an initial state, in their groups."""
    options: dict[str, Any] = {}
    for name, value in initial.items():
        if name.startswith(RESET_OPTIONS):
            *groups, last = name.removeprefix(RESET_OPTIONS).split("/")
            inner = options
            for group in groups:
                inner = inner.setdefault(group, {})
            inner[last] = np.array(value)
    return options


def check_state(
    label: str, here: tuple[NDArray[Any], NDArray[Any]], qpos: NDArray[np.float64], qvel: NDArray[np.float64]
) -> None:
    """UserError if recorded positions and velocities are not as many as those that an environment has `here`."""
    if (here[0].shape, here[1].shape) != (qpos.shape, qvel.shape):
        raise UserError(
            f"a state of {label} has {here[0].size} positions and {here[1].size} velocities; the recorded one has "
            f"{qpos.size} and {qvel.size}"
        )


def seed_words(seed: int) -> NDArray[np.float64]:
    """[2]: a seed of up to 64 bits, which float64 can't hold, as two numbers of 32; the high one first."""
    return np.array([seed >> 32, seed & (2**32 - 1)], np.float64)


def seed_of(words: NDArray[Any]) -> int:
    """The seed of `seed_words`, or of one number, as earlier versions wrote it."""
    seed = 0
    for word in np.ravel(words):
        seed = (seed << 32) + int(word)
    return seed


class SimEnv(Protocol):
    """What the rollout engine needs of one simulated environment, usually a `gymnasium.Env`.

    Observations are dicts with `state`: float32 [p] and, if frames were requested, `frames`: uint8
    [H, W, 3 * cameras]. Further methods are optional: `ExactSimEnv` has them all, `OPTIONAL` says what each is for.
    """

    observation_space: Any
    """A `Dict` with the space of `state`; that of `frames` follows from the request."""
    action_space: Any

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """A full simulator reset and the task's randomisation, drawn from `seed` alone."""

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, NDArray[Any]], float, bool, bool, dict[str, Any]]:
        """One environment step. `info` holds one bool per name in `EnvFactory.flags`, and equal steps have equal
        infos. It truncates at the factory's horizon."""

    def close(self) -> None:
        """Free the simulator and its GL context."""


class ExactSimEnv(SimEnv, Protocol):
    """A simulated environment with all that is optional. `reset` takes `options={"initial": x}` with x from
    `initial()`: the initial state and the randomised quantities are set to it instead of drawn."""

    seconds: tuple[float, float]
    """What the last step took: (simulating, rendering) in s, for all timings. Without it, a step counts as
    simulating."""
    frame_buffer: NDArray[np.uint8] | None
    """If set (it may be shared memory), frames are written into this array and returned as it: one copy less."""

    def render(self) -> NDArray[np.uint8]:
        """A picture [480, 480, 3] for people, at the best quality, whatever the run's look."""

    def dress(self, scene: Scene) -> None:
        """How all pictures look from the next one on, in later episodes too; `Scene()`: as nominally. Nothing else
        changes. UserError if the environment lacks what is to change, such as a light."""

    def renderer(self) -> str:
        """What draws the pictures, as the driver names it. UserError if nothing can."""

    def simulator(self) -> tuple[Any, Any]:
        """MuJoCo's own (model, data), for a viewer: to be looked at, not to be changed."""

    def about(self) -> Mapping[str, Sequence[str]]:
        """What settings can choose from (cameras, joints, parts of the observation): texts by title. An episode in
        progress may be lost."""

    def initial(self) -> dict[str, NDArray[np.float64]]:
        """The current episode's initial state and what the task randomised (float64), as `reset` takes it."""

    def physics(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(qpos, qvel) now."""

    def show(self, qpos: NDArray[np.float64], qvel: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        """The observation of a given simulator state, without stepping (playback by states)."""

    def get_state(self) -> dict[str, NDArray[Any]]:
        """All that decides the future of this episode, and the last observation as data."""

    def set_state(self, state: Arrays) -> dict[str, NDArray[Any]]:
        """Continue bit for bit where `get_state` was taken; returns the last observation as it was."""


OPTIONAL = {
    "render": "be filmed for people",
    "dress": "have its pictures changed (light, colours, a new object)",
    "simulator": "be shown in a window by `rrl play`, which films it",
    "about": "say what it has beside its spaces",
    "initial": "start an episode where a recorded one began",
    "physics": "record its states",
    "show": "play back recorded states",
    "get_state": "interrupt an episode and go on later (agents that learn at every step need that)",
    "set_state": "go on with an interrupted episode (agents that learn at every step need that)",
}
"""Methods that a simulated environment may lack, and what cannot be done with it then."""
