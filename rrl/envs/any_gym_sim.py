"""One environment of gymnasium in this project's form: normalised actions, a state vector, pictures as asked for."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from PIL import Image

from rrl.envs import about, gl
from rrl.envs.any_gym_scene import scene_of
from rrl.envs.base import Arrays, FrameRequest
from rrl.registry import UserError

Observation = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Settings:
    """Those of `rrl.envs.any_gym.Gymnasium.Config` that a simulated environment needs, by the same names."""

    id: str
    kwargs: tuple[tuple[str, Any], ...]
    cameras: tuple[str, ...]
    picture_key: str | None
    look: str
    state: str
    state_indices: tuple[int, ...] | None
    success: str | None
    success_threshold: float


class GymnasiumSim(gymnasium.Env[Any, NDArray[np.float32]]):
    """An environment by its id. UserError where it does not fit."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (gymnasium's declaration)
    render_mode = "rgb_array"

    def __init__(self, config: Settings, horizon: int, frames: FrameRequest | None) -> None:
        self._config, self._horizon, self._frames = config, horizon, frames
        self._env = _made(config)
        self._low, self._half = _range(config.id, self._env.action_space)
        self.action_space = spaces.Box(-1.0, 1.0, self._low.shape, np.float32)
        size = len(self._state(_example(self._env.observation_space)))
        observation: dict[str, spaces.Space[Any]] = {"state": spaces.Box(-np.inf, np.inf, (size,), np.float32)}
        self._scene = scene_of(config.id, self._env)
        if config.cameras and self._scene is None:
            raise UserError(f"{config.id} has no MuJoCo model with cameras: leave `Gymnasium.cameras` away")
        if self._scene is not None:
            self._scene.need(config.cameras)
        self._need_picture()
        if frames is not None:
            shape = (frames.size, frames.size, 3 * max(1, len(config.cameras)))
            observation["frames"] = spaces.Box(0, 255, shape, np.uint8)
        self.observation_space = spaces.Dict(observation)
        self.seconds = (0.0, 0.0)
        self._seed: int | None = None
        self._actions: list[NDArray[np.float32]] = []
        self._told = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode. `options["initial"]` is what `initial` gave: the episode begins as that one did."""
        super().reset(seed=seed)
        given = (options or {}).get("initial")
        if given is not None:
            if set(given) != {"seed"}:
                raise UserError(f"an initial state of {self._config.id} is its seed; got {', '.join(given) or 'none'}")
            seed = int(np.asarray(given["seed"]).item())
        elif seed is None:
            seed = int(self.np_random.integers(2**31))
        self._seed, self._actions = seed, []
        raw, _ = self._env.reset(seed=seed)
        return self._observe(raw), {}

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One step; actions in [-1, 1] (clipped) span the environment's range."""
        begun = perf_counter()
        raw, reward, terminated, truncated, info = self._stepped(action)
        simulated = perf_counter()
        observation = self._observe(raw)
        self.seconds = (simulated - begun, perf_counter() - simulated)
        ended = terminated or truncated or len(self._actions) >= self._horizon
        flags = {} if self._config.success is None else {"success": self._succeeds(info, ended=ended)}
        return observation, float(reward), bool(terminated), bool(ended and not terminated), flags

    def _stepped(self, action: NDArray[np.float32]) -> Any:
        self._actions.append(np.array(action, np.float32))
        scaled = self._low + (np.clip(action, -1.0, 1.0).astype(np.float64) + 1.0) * self._half
        return self._env.step(scaled.astype(self._env.action_space.dtype))

    def _succeeds(self, info: Mapping[str, Any], *, ended: bool) -> bool:
        key = str(self._config.success)
        if key in info:
            return float(np.asarray(info[key]).item()) > self._config.success_threshold
        if ended and not self._told:
            self._told = True
            print(
                f"note: Gymnasium.success = {key!r}, but at the end of an episode {self._config.id} has no such key in "
                f"its info (it has {', '.join(map(str, info)) or 'none'}): no episode counts as a success",
                file=sys.stderr,
                flush=True,
            )
        return False

    # Observations

    def _observe(self, raw: Any) -> Observation:
        observation: Observation = {"state": self._state(raw)}
        if self._frames is not None:
            observation["frames"] = self._pictures(raw, self._frames)
        return observation

    def _state(self, raw: Any) -> NDArray[np.float32]:
        wanted = self._config.state
        parts: list[Any] = []
        if wanted not in ("all", "none"):
            arrays = raw if isinstance(raw, Mapping) else {}
            if wanted not in arrays:
                raise UserError(
                    f"Gymnasium.state = {wanted!r}: the observation of {self._config.id} has no such key; "
                    f"{'it has ' + ', '.join(sorted(arrays)) if arrays else 'it is one array'}"
                )
            parts = [arrays[wanted]]
        elif wanted == "all":
            parts = [raw[key] for key in sorted(raw)] if isinstance(raw, Mapping) else [raw]
            parts = [part for part in parts if np.ndim(part) < 3]
        flat = np.concatenate([np.ravel(np.asarray(part, np.float32)) for part in parts] or [np.empty(0, np.float32)])
        chosen = self._config.state_indices
        if chosen is None:
            return flat
        if max(chosen, default=0) >= len(flat):
            raise UserError(f"Gymnasium.state_indices: {max(chosen)} is beyond the {len(flat)} numbers of the state")
        return flat[list(chosen)]

    def _pictures(self, raw: Any, frames: FrameRequest) -> NDArray[np.uint8]:
        key = self._config.picture_key
        if key is None:
            return self._drawn(frames) if self._scene else fitted(self._rendered(), frames)
        return fitted(np.asarray(raw[key]), frames)

    def _need_picture(self) -> None:
        key, space = self._config.picture_key, self._env.observation_space
        if key is None:
            return
        picture = space.spaces.get(key) if isinstance(space, spaces.Dict) else None
        shape = (picture.shape if picture is not None else None) or ()
        if picture is None or len(shape) != 3 or shape[-1] != 3 or picture.dtype != np.uint8:
            raise UserError(
                f"Gymnasium.picture_key = {key!r}: the observation of {self._config.id} has no picture, uint8 "
                "[H, W, 3], there"
            )

    def _drawn(self, frames: FrameRequest) -> NDArray[np.uint8]:
        assert self._scene is not None
        out = np.empty((frames.size, frames.size, 3 * max(1, len(self._config.cameras))), np.uint8)
        self._scene.draw(self._config.cameras, self._config.look, frames, out)
        return out

    def _rendered(self) -> NDArray[np.uint8]:
        picture = self._env.render()
        if np.ndim(picture) != 3:
            raise UserError(f"{self._config.id} renders no picture: set `Gymnasium.picture_key`")
        return np.asarray(picture, np.uint8)

    def render(self) -> NDArray[np.uint8]:
        """A picture for people, uint8 [480, 480, 3]."""
        whole = FrameRequest(480, 480)
        if self._scene is None:
            return fitted(self._rendered(), whole)
        out = np.empty((480, 480, 3), np.uint8)
        self._scene.draw(self._config.cameras[:1], "default", whole, out)
        return out

    def about(self) -> dict[str, list[str]]:
        """What the settings choose from, after a step of an episode of its own."""
        self._env.reset(seed=0)
        self._env.action_space.seed(0)
        raw, _, _, _, info = self._env.step(self._env.action_space.sample())
        observation, state = about.of_observation(raw, self._config.state)
        words = {
            "actions in the environment": about.of_range(self._low, self._low + 2 * self._half),
            "observation": observation,
            "info after a step": about.of_info(info),
        }
        return words | (about.of_model(self._scene.model, self._scene.data, state) if self._scene else {})

    def renderer(self) -> str:
        """What draws: the GL driver's name, where rrl draws a MuJoCo model."""
        return gl.renderer() if self._scene else f"{self._config.id} itself"

    # Episodes as seed and actions

    def initial(self) -> dict[str, NDArray[np.float64]]:
        """How the episode began: its seed."""
        return {"seed": np.array([float(self._seed or 0)])}

    def get_state(self) -> Observation:
        """The episode's seed and its actions so far, and the last state vector, which repeating them must give."""
        shape = (0, *self.action_space.shape)  # type: ignore[misc]
        actions = np.stack(self._actions) if self._actions else np.empty(shape, np.float32)
        return {"seed": np.array(self._seed), "actions": actions}

    def set_state(self, state: Arrays) -> Observation:
        """Repeat the episode up to there; returns the last observation."""
        self._seed, self._actions = int(state["seed"]), []
        raw, _ = self._env.reset(seed=self._seed)
        for action in state["actions"]:
            raw = self._stepped(action)[0]
        return self._observe(raw)

    def physics(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(qpos, qvel) of its MuJoCo simulator now; empty arrays where it has none."""
        if self._scene is None:
            return np.empty(0), np.empty(0)
        return np.array(self._scene.data.qpos), np.array(self._scene.data.qvel)

    def close(self) -> None:
        """Close the environment."""
        self._scene = None
        self._env.close()


def fitted(picture: NDArray[np.uint8], frames: FrameRequest) -> NDArray[np.uint8]:
    """A picture [H, W, 3] as an encoder asks for it: the shorter side to `crop_from` pixels, then the centre of side
    `size` (bilinear with antialiasing, as torchvision's `Resize` and `CenterCrop`)."""
    image = Image.fromarray(picture)
    scale = frames.crop_from / min(image.size)
    width, height = (max(frames.crop_from, round(side * scale)) for side in image.size)
    left, top = (width - frames.size) // 2, (height - frames.size) // 2
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image)[top : top + frames.size, left : left + frames.size]


def _made(config: Settings) -> Any:
    """The environment without its limit of steps, which is counted here, and without gymnasium's checker."""
    settings = {"render_mode": "rgb_array", **dict(config.kwargs)}
    try:
        return gymnasium.make(config.id, max_episode_steps=-1, disable_env_checker=True, **settings)
    except Exception as error:  # whatever a stranger's environment raises
        raise UserError(f"{config.id} can't be made: {type(error).__name__}: {error}") from error


def _range(name: str, space: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(lowest value, half the width) of each number of an action."""
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise UserError(f"{name} has actions {space}; rrl's agents act in a box of continuous numbers, such as Box(7,)")
    if not space.is_bounded():
        raise UserError(f"{name} has actions without bounds, {space}: what should -1 and 1 mean?")
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    return low, (high - low) / 2


def _example(space: Any) -> Any:
    """An observation's shapes: zeros."""
    if isinstance(space, spaces.Dict):
        return {key: _example(part) for key, part in space.items()}
    return np.zeros(space.shape or (), space.dtype)
