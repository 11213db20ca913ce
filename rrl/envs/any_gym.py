"""Every environment that gymnasium knows, as a component: the reader's own task."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.metadata
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any, Self

import gymnasium
import numpy as np
import pydantic
from numpy.typing import NDArray

from rrl.envs.base import EnvFactory, FrameRequest, Look, Steps, meant
from rrl.registry import CountOrZero, UserError, mistake, register
from rrl.score import RETURN, Score, success

if TYPE_CHECKING:
    from rrl.envs.any_gym_sim import GymnasiumSim

NAME = "gymnasium_"
"""How names of these environments begin."""
ELSEWHERE = (
    "say with --task what to replay it in: a task, an id of gymnasium's, or a gin file that sets `Experiment.env`"
)
Plain = bool | int | float | str | None | tuple[bool | int | float | str, ...]


@register
class Gymnasium(EnvFactory):
    """A registered gymnasium environment with continuous actions, whoever wrote it.

    Actions of [-1, 1] span the environment's own range. An episode that was interrupted goes on after its actions were
    repeated from its seed: exact wherever equal seeds and actions give equal steps.
    """

    class Config(EnvFactory.Config):
        """Which environment, what is seen of it, and when it succeeds."""

        id: str
        """gymnasium's name, such as 'Pusher-v5'; 'module:Name-v1' imports an installed module first, which registers
        it, such as 'gymnasium_robotics:AdroitHandDoor-v1'."""
        kwargs: tuple[tuple[str, Plain], ...] = ()
        """Arguments of the environment as (name, value) pairs, such as (('reward_type', 'sparse'),)."""
        cameras: tuple[str, ...] = ()
        """Names of cameras in the environment's MuJoCo model, drawn in this order. Empty: one picture, from
        `picture_key` or as the environment renders itself ('rgb_array')."""
        picture_key: str | None = None
        """Where a dict observation holds a picture, uint8 [H, W, 3]."""
        look: Look = "default"
        """Render quality of `cameras`: `default` the model's own, `fast` without shadows and smoothing. Without
        `cameras` it has no effect."""
        state: Annotated[str, pydantic.Field(min_length=1)] = "all"
        """What the state vector holds: 'all' of the observation (a dict's arrays in the order of their keys, pictures
        left out), 'none', or an array of a dict observation by its key."""
        state_indices: tuple[CountOrZero, ...] | None = None
        """Only these numbers of it, such as the robot's joints; (0, 1, 2)."""
        success: str | None = None
        """The key of `info` that tells success. None: the task is judged by its return."""
        success_threshold: Annotated[float, pydantic.Field(ge=-1e9, le=1e9)] = 0.5
        """What the number under that key must exceed; True counts as 1."""
        success_steps: CountOrZero = 0
        """An episode succeeds where that is so in more than this many steps."""
        horizon: Steps | None = None
        """Steps after which an episode is truncated. None: the environment's own limit."""

        @pydantic.field_validator("id")
        @classmethod
        def _is_registered(cls, name: str) -> str:
            try:
                spec_of(name)
            except UserError as error:
                message, _, hint = str(error).partition("\n")
                raise mistake("id", f"Gymnasium.id: {message}", hint) from None
            return name

        @pydantic.model_validator(mode="after")
        def _one_source_of_pictures(self) -> Gymnasium.Config:
            if self.cameras and self.picture_key is not None:
                raise mistake("picture_key", "pictures come from cameras or from the observation, not both", "set one")
            if self.horizon is None and spec_of(self.id).max_episode_steps is None:
                raise mistake("horizon", f"{self.id} has no limit of steps of its own", "set `Gymnasium.horizon`")
            return self

        def whole(self) -> Self:
            """With all of the observation in the state vector."""
            return self.of({**dict(self), "state": "all", "state_indices": None})

        def label(self) -> str:
            """The environment's name without its module."""
            return self.id.rpartition(":")[2]

    config: Config
    packages = ("gymnasium", "mujoco")
    visual = frozenset({"look"})
    oracle = "Gymnasium.state = 'all'"
    generic = True

    @classmethod
    def of_task(cls, task: str, **settings: Any) -> Gymnasium.Config | None:
        """The environment of this id, which ends in a version."""
        return cls.Config.of({"id": task, **settings}) if re.search(r"-v\d+$", task) else None

    @classmethod
    def of_recorded(cls, facts: Mapping[str, Any], **settings: Any) -> Gymnasium.Config | None:
        """The environment with these `settings()`."""
        if not str(facts["env"]).startswith(NAME) or "id" not in facts:
            return None
        texts = {name: facts[name] for name in cls.Config.model_fields if isinstance(facts.get(name), str)}
        values = {name: _value(name, text) for name, text in texts.items()}
        pictures = str(values.pop("cameras", "render"))
        if pictures not in (values.get("picture_key"), "render"):
            values["cameras"] = tuple(pictures.split(","))
        return cls.Config.of({**values, **settings})

    @classmethod
    def of_spec(cls, spec: Mapping[str, Any]) -> Gymnasium.Config | None:
        """The environment of this id, with the arguments and the limit of steps that its registration lacks."""
        name = _installed(str(spec.get("id")), spec.get("entry_point"))
        usual = spec_of(name)
        known = json.loads(json.dumps(usual.kwargs, default=str))
        given = {k: v for k, v in (spec.get("kwargs") or {}).items() if known.get(k) != v and k != "render_mode"}
        settings: dict[str, Any] = {"id": name, "kwargs": tuple((k, _tuples(v)) for k, v in given.items())}
        steps = spec.get("max_episode_steps")
        if steps is not None and steps != usual.max_episode_steps:
            settings["horizon"] = steps
        try:
            return cls.Config.of(settings)
        except UserError as error:
            raise UserError(f"{name} can't be had as it was recorded: {error}\n{ELSEWHERE}") from error

    @property
    def name(self) -> str:
        return NAME + self.config.label().replace("/", "_")

    @property
    def horizon(self) -> int:
        return self.config.horizon or int(spec_of(self.config.id).max_episode_steps or 0)

    @property
    def cameras(self) -> tuple[str, ...]:
        return self.config.cameras or (self.config.picture_key or "render",)

    @property
    def score(self) -> Score:
        return RETURN if self.config.success is None else success("success", self.config.success_steps)

    @property
    def has_state(self) -> bool:
        return self.config.state != "none"

    def settings(self) -> dict[str, str]:
        chosen = {name: value for name, value in self.config if value != type(self.config).model_fields[name].default}
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in chosen.items()}

    def facts(self) -> dict[str, str]:
        return super().facts() | version_of(self.config.id)

    def probe(self, frames: FrameRequest | None) -> None:
        self.make_one(None).close()

    def action_range(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        with closing(self.make_one(None)) as sim:
            return sim.action_range()

    def starts(
        self, told: Sequence[Mapping[str, Any]], seen: Sequence[NDArray[np.float64] | None]
    ) -> tuple[list[dict[str, NDArray[np.float64]]], str]:
        from rrl.envs.any_gym_start import starts

        with closing(self.make_one(None)) as sim:
            return starts(sim, told, seen)

    def make_one(self, frames: FrameRequest | None) -> GymnasiumSim:
        from rrl.envs.any_gym_sim import GymnasiumSim, Settings

        settings = {field.name: getattr(self.config, field.name) for field in dataclasses.fields(Settings)}
        return GymnasiumSim(Settings(**settings), self.horizon, frames)


def spec_of(name: str) -> Any:
    """gymnasium's description of a registered environment; the module before a colon is imported. UserError, with a
    hint on its second line, if there is none."""
    module, _, short = name.rpartition(":")
    try:
        if module:
            importlib.import_module(module)
        return gymnasium.spec(short)
    except ImportError as error:
        raise UserError(f"{name!r} needs the module {module}, which can't be imported ({error})\ninstall it") from error
    except gymnasium.error.Error as error:
        hint = meant(short, sorted(gymnasium.registry)).removeprefix("; ")
        other = "" if module else "environments of other packages are named 'module:Name-v1'"
        raise UserError(f"gymnasium knows no environment {name!r}\n{hint or other}") from error


def _installed(name: str, entry_point: Any) -> str:
    """The name by which an environment that a file describes can be had: of gymnasium, or of an installed package made
    for gymnasium, the only ones that are imported because a file says so. UserError if it is neither's."""
    known = gymnasium.registry.get(name)
    entry = entry_point if known is None else known.entry_point
    module = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "")
    package = module.partition(".")[0]
    owners = _distributions().get(package, ())
    if known is not None:  # another process finds it by its module alone
        return name if package == "gymnasium" else f"{package if owners else module}:{name}"
    needs = [need for owner in owners for need in importlib.metadata.requires(owner) or ()]
    if ":" not in name and any(need.lower().startswith("gymnasium") for need in needs):
        spec_of(f"{package}:{name}")
        return f"{package}:{name}"
    comes = f"; it comes from the package {package!r}, which must be installed" if package else ""
    raise UserError(f"gymnasium knows no environment {name!r} here{comes}\n{ELSEWHERE}")


def _tuples(value: Any) -> Any:
    """JSON's lists as tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _value(name: str, text: str) -> Any:
    """A setting out of its text among the facts, where strings stand as they are."""
    try:
        value = _tuples(json.loads(text))
    except ValueError:
        return text
    return value if Gymnasium.Config.model_fields[name].annotation not in (str, str | None) else text


@functools.cache
def _distributions() -> Mapping[str, Sequence[str]]:
    """Per top-level package the installed distributions that it comes from: all of them are read for that."""
    return importlib.metadata.packages_distributions()


def version_of(name: str) -> dict[str, str]:
    """The version of the distribution that an environment comes from; empty where it can't be told."""
    entry = spec_of(name).entry_point
    module = (entry if isinstance(entry, str) else getattr(entry, "__module__", "")).split(".")[0]
    owners = _distributions().get(module, ())
    return {owner: importlib.metadata.version(owner) for owner in owners[:1]}
