"""Encoders in front of other people's training code: gymnasium environments whose pictures come out as features.

    env = gymnasium.make("InvertedPendulum-v5", render_mode="rgb_array", width=224, height=224)
    env = rrl.EncodedObservation(env, "MobileNetV2", render=True, stack=2)        # a Box of 2 * 1280 features

`EncodedVectorObservation` does the same to gymnasium's vector environments: one batch for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Dict
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorObservationWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from rrl.config import refusals
from rrl.encoders import backends
from rrl.encoders.base import Encoder, Inference
from rrl.envs.base import FrameRequest, meant
from rrl.registry import UserError, build, get, names
from rrl.rollout.slots import Stack

State = Literal["drop", "flat", "dict"]
"""What becomes of the other parts of an observation: left out, behind the features in one vector, beside them."""
FEATURES = "features"
ALONE = ""
"""The key of pictures that are the whole observation."""
WHOLE = "state"
"""What a `dict` calls the observation itself, where that is one array and the pictures are rendered."""


class EncodedObservation(gymnasium.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """An environment whose observations are an encoder's features of its pictures, float32 [stack * dim]."""

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        encoder: str | Encoder.Config | Encoder,
        *,
        pictures: str | Sequence[str] | None = None,
        render: bool = False,
        state: State = "drop",
        stack: int = 1,
        inference: Inference | None = None,
        **settings: Any,
    ) -> None:
        """UserError says what doesn't fit.

        `encoder`: a registered frozen encoder's name with its `settings`, its Config, or a built one.
        `pictures`: keys of a Dict observation, uint8 [H, W, 3 * k] each, cameras in this order; None: the only such
        part, or the observation itself. `render`: what `env.render()` gives instead. Of another size than
        `Config.frames()` says, they are resized and cropped as the weights' publisher does.
        `state`: what becomes of the rest of the observation. 'drop': nothing. 'flat': its numbers stand behind the
        features, in the order of its keys, as RRL's policies have it. 'dict': a Dict of `features` and the rest.
        `stack`: the latest so many feature vectors, oldest first; an episode's first one fills all places.
        `inference`: how it is computed; None: in float32 on the GPU if there is one, by the fastest backend
        installed, with torch's number of threads.
        """
        # With it, `env.spec` can make the environment again.
        given = {"encoder": encoder, "pictures": pictures, "render": render, "state": state, "stack": stack}
        RecordConstructorArgs.__init__(self, _disable_deepcopy=True, inference=inference, **given, **settings)
        if isinstance(env, VectorEnv):
            raise UserError("a vector environment needs rrl.EncodedVectorObservation, which encodes one batch of all")
        super().__init__(env)
        if render:
            _renders(env.render_mode)
        self._front = _Front(env.observation_space, 1, encoder, pictures, render, state, stack, inference, settings)
        self._fresh = True
        self.encoder = self._front.encoder
        self.observation_space = self._front.space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        self._fresh = True
        return super().reset(seed=seed, options=options)

    def observation(self, observation: Any) -> Any:
        """What `observation_space` says, of what the environment gives."""
        fresh, self._fresh = np.array([self._fresh]), False
        parts = [np.asarray(picture)[None] for picture in self._front.pictures(observation, self.env.render)]
        return self._front.result(self._front.features(parts, fresh, ~fresh)[0], observation)


class EncodedVectorObservation(VectorObservationWrapper[Any, Any, Any, Any]):
    """The same of a vector environment: the pictures of all environments are encoded in one batch."""

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        encoder: str | Encoder.Config | Encoder,
        *,
        pictures: str | Sequence[str] | None = None,
        render: bool = False,
        state: State = "drop",
        stack: int = 1,
        inference: Inference | None = None,
        **settings: Any,
    ) -> None:
        """As `EncodedObservation`. UserError for environments that are reset within the step that ends an episode:
        gymnasium's own default, `AutoresetMode.NEXT_STEP`, and no autoreset will do."""
        if not isinstance(env, VectorEnv):
            raise UserError(
                "EncodedVectorObservation is for vector environments; a single one needs EncodedObservation"
            )
        self._mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        if self._mode == AutoresetMode.SAME_STEP:
            raise UserError("EncodedVectorObservation needs environments with AutoresetMode.NEXT_STEP or DISABLED")
        super().__init__(env)
        if render:
            _renders(env.render_mode)
        count, space = self.num_envs, self.env.single_observation_space
        self._front = _Front(space, count, encoder, pictures, render, state, stack, inference, settings)
        self._fresh, self._moved = np.ones(count, np.bool_), np.zeros(count, np.bool_)
        self.encoder = self._front.encoder
        self.single_observation_space = self._front.space
        self.observation_space = batch_space(self.single_observation_space, count)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode everywhere, or where `options["reset_mask"]` says."""
        mask = (options or {}).get("reset_mask")
        begun = np.ones(self.num_envs, np.bool_) if mask is None else np.array(mask, np.bool_)
        due = self._fresh & ~begun  # others may begin with their next step
        self._fresh, self._moved = begun, np.zeros(self.num_envs, np.bool_)
        result = super().reset(seed=seed, options=options)  # type: ignore[arg-type]
        self._fresh = due
        return result

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """A step everywhere; where an episode has ended, gymnasium's next step begins another."""
        self._moved = ~self._fresh
        observed, rewards, terminated, truncated, info = super().step(actions)
        if self._mode == AutoresetMode.NEXT_STEP:
            self._fresh = np.asarray(terminated | truncated)
        return observed, rewards, terminated, truncated, info

    def observations(self, observations: Any) -> Any:
        """What `observation_space` says, of what the environments give."""
        fresh, self._fresh = self._fresh, np.zeros(self.num_envs, np.bool_)
        parts = [np.asarray(batch) for batch in self._front.pictures(observations, self.env.render)]
        return self._front.result(self._front.features(parts, fresh, self._moved), observations)


def _renders(mode: str | None) -> None:
    if mode != "rgb_array":
        raise UserError(f"render=True needs an environment made with render_mode='rgb_array'; this one has {mode!r}")


class _Front:
    """What both wrappers share: where the pictures are, how they become features, and what comes out."""

    def __init__(
        self,
        space: gymnasium.Space[Any],
        slots: int,
        encoder: str | Encoder.Config | Encoder,
        pictures: str | Sequence[str] | None,
        render: bool,
        state: State,
        stack: int,
        inference: Inference | None,
        settings: Mapping[str, Any],
    ) -> None:
        if state not in ("drop", "flat", "dict"):
            raise UserError(f"state is 'drop', 'flat' or 'dict'; got {state!r}")
        if not isinstance(stack, int) or stack < 1:
            raise UserError(f"stack is a number of feature vectors, 1 or more; got {stack!r}")
        if render and pictures is not None:
            raise UserError("give `pictures`, parts of the observation, or `render`, not both")
        self._pictures = {} if render else _found(space, pictures)
        self.encoder = _built(encoder, sum(box.shape[-1] // 3 for box in self._pictures.values()) or 1, settings)
        frames = _config(self.encoder).frames()
        assert frames is not None
        self._frames = frames
        self._encode = self.encoder.inference(inference or _here(self.encoder))
        self._latest = {"frames": Stack(slots, frames.stack), "features": Stack(slots, stack)}
        self._state = state
        self._rest = self._others(space)
        self.space = self._resulting(self.encoder.dim * stack)

    def _others(self, space: gymnasium.Space[Any]) -> dict[str, gymnasium.Space[Any]]:
        """The parts of an observation that are no pictures, by their keys."""
        if self._state == "drop" or ALONE in self._pictures:
            return {}
        parts = space.spaces if isinstance(space, Dict) else {WHOLE: space}
        rest = {key: part for key, part in parts.items() if key not in self._pictures}
        if self._state == "dict" and FEATURES in rest:
            raise UserError(f"the observation has a part {FEATURES!r} of its own: take state='flat' or 'drop'")
        odd = [key for key, part in rest.items() if not isinstance(part, Box)]
        if self._state == "flat" and odd:
            raise UserError(f"state='flat' takes Boxes alone, {odd[0]!r} is {rest[odd[0]]}: say state='dict' or 'drop'")
        return rest

    def _resulting(self, width: int) -> Box | Dict:
        features = Box(-np.inf, np.inf, (width,), np.float32)
        if self._state == "dict":
            return Dict({FEATURES: features, **self._rest})
        boxes = [features, *(part for part in self._rest.values() if isinstance(part, Box))]
        low, high = (np.concatenate([np.ravel(end) for end in ends]) for ends in zip(*map(_ends, boxes), strict=True))
        return Box(low, high, dtype=np.float32)

    def pictures(self, observation: Any, render: Any) -> list[Any]:
        """Those of an observation, or of a batch of them."""
        if not self._pictures:
            drawn = render()
            drawn = np.stack(drawn) if isinstance(drawn, list | tuple) and drawn else np.asarray(drawn)
            if drawn.dtype != np.uint8 or drawn.shape[-1:] != (3,) or drawn.ndim not in (3, 4):
                raise UserError(
                    f"render() must give pictures, uint8 [height, width, 3]; got {drawn.dtype} {drawn.shape}"
                )
            return [drawn]
        return [observation if key == ALONE else observation[key] for key in self._pictures]

    def features(
        self, parts: Sequence[NDArray[np.uint8]], fresh: NDArray[np.bool_], moved: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """uint8 [N, H, W, 3 * k] of each part -> float32 [N, stack * dim]; `fresh` and `moved` as in `Stack`."""
        # What render() gives may be upside down in memory, which torch can't take.
        sized = [
            resized(torch.from_numpy(np.ascontiguousarray(part)), self._frames, self.encoder.interpolation)
            for part in parts
        ]
        frames = self._latest["frames"].push(torch.cat(sized, dim=-1).numpy(), fresh, moved)
        features = self._encode(torch.as_tensor(frames)).float().cpu().numpy()
        return self._latest["features"].push(features, fresh, moved)

    def result(self, features: NDArray[np.float32], observation: Any) -> Any:
        """What the wrapper gives, of an observation or a batch of them."""
        rest = {key: observation[key] if isinstance(observation, dict) else observation for key in self._rest}
        if self._state == "dict":
            return {FEATURES: features, **rest}
        numbers = [np.reshape(values, (*features.shape[:-1], -1)) for values in rest.values()]
        return np.concatenate([features, *numbers], axis=-1, dtype=np.float32)


def _ends(box: Box) -> tuple[NDArray[Any], NDArray[Any]]:
    return box.low.astype(np.float32), box.high.astype(np.float32)


def _found(space: gymnasium.Space[Any], wanted: str | Sequence[str] | None) -> dict[str, Box]:
    """The pictures in an observation by their keys. UserError if there are none, or no telling which ones."""
    parts = dict(space.spaces) if isinstance(space, Dict) else {ALONE: space}
    known = {key: part for key, part in parts.items() if _is_picture(part)}
    asked = list(known) if wanted is None else [wanted] if isinstance(wanted, str) else list(wanted)
    if len(set(asked)) < len(asked):
        raise UserError(f"each part of the observation once; got pictures={tuple(asked)}")
    if asked and known.keys() >= set(asked):
        if wanted is None and len(known) > 1:
            raise UserError(f"which pictures? The observation has {', '.join(known)}: say pictures={tuple(known)}")
        return {key: known[key] for key in asked}  # type: ignore[misc]
    lacks = f"no pictures {', '.join(map(repr, asked))}" if asked else "no pictures"
    has = ", ".join(f"{key}: {part}" for key, part in parts.items()) if isinstance(space, Dict) else str(space)
    raise UserError(
        f"{lacks} in the observation ({has}): they are Boxes of uint8 [height, width, 3 * cameras]\n"
        "  say render=True to encode what render() gives; rrl's own environments have `frames` if they are made with, "
        "say, frames=224, crop_from=256"
    )


def _is_picture(space: gymnasium.Space[Any]) -> bool:
    if not isinstance(space, Box) or space.dtype != np.uint8 or len(space.shape) != 3:
        return False
    height, width, channels = space.shape
    return channels % 3 == 0 and channels < min(height, width)  # else channels may come first


def _built(encoder: str | Encoder.Config | Encoder, cameras: int, settings: Mapping[str, Any]) -> Encoder:
    """The encoder for so many cameras; UserError if there is none or it can't stand here."""
    if isinstance(encoder, str):
        known = names("encoder")
        if encoder not in known:
            raise UserError(f"no encoder is named {encoder!r}{meant(encoder, known)} (one of {', '.join(known)})")
        encoder = refusals.checked(get(encoder).Config, settings)  # type: ignore[assignment]
    elif not isinstance(encoder, Encoder.Config | Encoder):
        raise UserError(f"an encoder is a name, such as 'MobileNetV2', a Config or a built one; got {encoder!r}")
    elif settings:
        raise UserError(f"{next(iter(settings))!r} is no setting here: settings go with an encoder's name")
    config = encoder if isinstance(encoder, Encoder.Config) else _config(encoder)  # type: ignore[arg-type]
    name = config.component.__name__
    if config.component.trainable:  # type: ignore[attr-defined]
        raise UserError(
            f"{name} learns with an agent: nothing would train it here. Take a frozen, pretrained encoder; what one of "
            "these learned in a run can be frozen too: rrl export RUN --encoder FILE"
        )
    if config.frames() is None:
        raise UserError(f"{name} sees no pictures: take an encoder of pictures")
    made: Encoder = encoder if isinstance(encoder, Encoder) else build(config, cameras=cameras)
    if made.cameras != cameras:
        raise UserError(f"this {name} was built for {made.cameras} camera(s); the observation shows {cameras}")
    return made


def _config(encoder: Encoder) -> Encoder.Config:
    assert isinstance(encoder.config, Encoder.Config)
    return encoder.config


def _here(encoder: Encoder) -> Inference:
    """In float32, by the fastest that is installed."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    backend = backends.choose(encoder.backends, device, "fp32")
    return Inference(backend, device=torch.device(device), threads=torch.get_num_threads())


def resized(pictures: Tensor, frames: FrameRequest, interpolation: str) -> Tensor:
    """uint8 [N, H, W, C] -> uint8 [N, size, size, C]: the shorter side resized to `crop_from` pixels, with
    antialiasing (as Pillow does it: to a grey level in few pixels), and the centre cut out. Pictures of that very size
    are taken to be what was asked for."""
    if pictures.shape[1:3] == (frames.size, frames.size):
        return pictures
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import center_crop, resize

    # torch's plain `nearest` keeps an old rounding of its own.
    mode = InterpolationMode("nearest-exact" if interpolation == "nearest" else interpolation)
    ordered = resize(pictures.permute(0, 3, 1, 2), [frames.crop_from], mode, antialias=True)
    cut: Tensor = center_crop(ordered, [frames.size, frames.size])
    return cut.permute(0, 2, 3, 1)
