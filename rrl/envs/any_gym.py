"""Every environment that gymnasium knows, as a component: the reader's own task."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
import pydantic
from numpy.typing import NDArray

from rrl.envs.base import EnvFactory, FrameRequest, Look, Steps
from rrl.envs.gym_packages import ELSEWHERE, installed, spec_of, version_of
from rrl.registry import CountOrZero, UserError, mistake, register
from rrl.score import RETURN, Score, success

if TYPE_CHECKING:
    from rrl.envs.any_gym_sim import GymnasiumSim

NAME = "gymnasium_"
"""How names of these environments begin."""
Distance = Annotated[float, pydantic.Field(gt=0, le=1_000)]
Angle = Annotated[float, pydantic.Field(ge=-360, le=360)]
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
        turned: tuple[str, ...] = ()
        """Those of `cameras` that hang upside down in their model: their pictures are turned by 180 degrees."""
        picture_key: str | None = None
        """Where a dict observation holds a picture, uint8 [H, W, 3]."""
        view: tuple[Distance, Angle, Angle] | None = None
        """Without `cameras`, where a MuJoCo model is looked at from: distance (m), azimuth and elevation (degrees).
        None: as the environment shows itself."""
        look: Look = "default"
        """Render quality where a MuJoCo model is drawn: `default` the model's own, `fast` without shadows and
        smoothing. The environment's own pictures have one quality."""
        state: Annotated[str, pydantic.Field(min_length=1)] = "all"
        """What the state vector holds: 'all' of the observation (a dict's arrays in the order of their keys, pictures
        left out), 'none', or an array of a dict observation by its key."""
        state_indices: tuple[CountOrZero, ...] | None = None
        """Only these numbers of it, such as the robot's joints; (0, 1, 2)."""
        success: str | None = None
        """The key of `info` that tells success. None: the task is judged by its return."""
        success_threshold: Annotated[float, pydantic.Field(ge=-1e9, le=1e9)] = 0.5
        """What the number under that key must exceed; True counts as 1, a list of names as their number."""
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
            if self.view is not None and (self.cameras or self.picture_key is not None):
                raise mistake("view", "Gymnasium.view is for pictures without cameras and picture_key", "set one")
            if others := [name for name in self.turned if name not in self.cameras]:
                raise mistake("turned", f"{others[0]!r} is not among Gymnasium.cameras", "name it there, or not here")
            if self.horizon is None and spec_of(self.id).max_episode_steps is None:
                raise mistake("horizon", f"{self.id} has no limit of steps of its own", "set `Gymnasium.horizon`")
            names = [name for name, _ in self.kwargs]
            if twice := [name for name in names if names.count(name) > 1]:
                raise mistake("kwargs", f"{twice[0]!r} stands twice among Gymnasium.kwargs", "remove one")
            steps = self.horizon or spec_of(self.id).max_episode_steps
            if self.success_steps >= steps:
                raise mistake("success_steps", f"no episode of {steps} steps can succeed in more than that", "lower it")
            return self

        def whole(self) -> Self:
            """With all of the observation in the state vector."""
            return self.of({**dict(self), "state": "all", "state_indices": None})

        def label(self) -> str:
            """The environment's name without its module, and the words among its arguments: they may choose the
            task."""
            words = [word for _, value in self.kwargs for word in (value if isinstance(value, tuple) else (value,))]
            return " ".join([self.id.rpartition(":")[2], *(word for word in words if isinstance(word, str))])

    config: Config
    packages = ("gymnasium", "mujoco")
    visual = frozenset({"look", "turned", "view"})
    oracle = "Gymnasium.state = 'all'"
    generic = True
    variant = ("kwargs",)

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
        name = installed(str(spec.get("id")), spec.get("entry_point"))
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
        return NAME + self.config.label().replace("/", "_").replace(" ", "_")

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
        return self.config.state != "none" and self.config.state_indices != ()

    def settings(self) -> dict[str, str]:
        fields = type(self.config).model_fields
        chosen = {n: value for n, value in self.config if n in self.variant or value != fields[n].default}
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in chosen.items()}

    def facts(self) -> dict[str, str]:
        return super().facts() | version_of(self.config.id)

    def probe(self, frames: FrameRequest | None) -> None:
        """UserError too where the first steps of an episode fail; a note where they can't be repeated."""
        from rrl.envs.any_gym_sim import trace

        with closing(self.make_one(None)) as sim:
            if frames is None and not sim.observation_space["state"].shape[0]:  # type: ignore[index]
                raise UserError(
                    f"this policy would see nothing: {self.config.label()} observes a picture alone: take an encoder "
                    "of pictures"
                )
        traces = []
        for before in (True, False):
            env = self.make_one(None)
            try:
                traces.append(trace(env, before))
            finally:
                env.close()
        one, two = (np.concatenate(each) for each in traces)
        if not np.array_equal(one, two, equal_nan=True):
            print(NOT_THE_SAME.format(self.config.label()), file=sys.stderr, flush=True)

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


NOT_THE_SAME = (
    "note: {} does not repeat itself: one seed and the same actions gave two different episodes. Runs with one seed "
    "will differ, and an episode that is interrupted (a resume, or an evaluation of an agent that learns at every "
    "step) is repeated from its seed and goes on from wherever that leads"
)
