"""One environment of gymnasium in this project's form: normalised actions, a state vector, pictures as asked for."""

from __future__ import annotations

import difflib
import random
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from numpy.typing import NDArray
from PIL import Image

from rrl.envs import about, gl, gym_packages
from rrl.envs.any_gym_scene import Scene, scene_of
from rrl.envs.any_gym_seen import NUMBERS, flat, observer, parts_of, row
from rrl.envs.base import RESET_OPTIONS, Arrays, FrameRequest, check_state, reset_options, seed_of, seed_words
from rrl.envs.scene import Scene as Changes
from rrl.registry import UserError

Observation = dict[str, NDArray[Any]]
START = ("seed", "qpos", "qvel")
"""What an episode begins with, beside options of the environment's own reset."""
SAME = 1e-6
"""Observations are the same up to this difference (where numbers are above 1: up to this part of them)."""


@dataclass(frozen=True)
class Settings:
    """Those of `rrl.envs.any_gym.Gymnasium.Config` that a simulated environment needs, by the same names."""

    id: str
    kwargs: tuple[tuple[str, Any], ...]
    cameras: tuple[str, ...]
    turned: tuple[str, ...]
    view: tuple[float, float, float] | None
    picture_key: str | None
    look: str
    state: str
    state_indices: tuple[int, ...] | None
    success: str | None
    success_threshold: float

    @property
    def title(self) -> str:
        """The environment in an error; equal ones are made alike."""
        given = ", ".join(f"{name}={value!r}" for name, value in self.kwargs)
        return f"{self.id}({given})" if given else self.id


class GymnasiumSim(gymnasium.Env[Any, NDArray[np.float32]]):
    """An environment by its id. UserError where it does not fit."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (gymnasium's declaration)
    render_mode = "rgb_array"

    def __init__(self, config: Settings, horizon: int, frames: FrameRequest | None) -> None:
        self._config, self._horizon, self._frames = config, horizon, frames
        self._name = config.title
        self._env = _made(config)
        self.metadata = {**self.metadata, "render_fps": self._env.metadata.get("render_fps")}
        self._low, self._half = _range(self._name, self._env.action_space)
        self.action_space = spaces.Box(-1.0, 1.0, self._low.shape, np.float32)
        self._size = len(self._state(_example(self._env.observation_space)))
        observation: dict[str, spaces.Space[Any]] = {"state": spaces.Box(-np.inf, np.inf, (self._size,), np.float32)}
        self._scene = scene_of(self._name, self._env, config.turned, config.view)
        if self._scene is None:
            if config.cameras or config.view:
                name = "cameras" if config.cameras else "view"
                raise UserError(f"{self._name} has no MuJoCo model with cameras: leave `Gymnasium.{name}` away")
        else:
            self._scene.need(config.cameras)
        self._need_picture()
        if frames is not None:
            shape = (frames.size, frames.size, 3 * max(1, len(config.cameras)))
            observation["frames"] = spaces.Box(0, 255, shape, np.uint8)
        self.observation_space = spaces.Dict(observation)
        self.seconds = (0.0, 0.0)
        self._look = observer(self._env)
        self._seed = 0
        self._initial: dict[str, NDArray[np.float64]] = {}
        self._actions: list[NDArray[np.float32]] = []
        self._raw: Any = None
        self._return = 0.0
        self._told: set[str] = set()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode. `options["initial"]` is what `initial` gave: the episode begins as that one did."""
        super().reset(seed=seed)
        given = (options or {}).get("initial")
        if given is None:
            given = {"seed": seed_words(int(self.np_random.integers(2**31)) if seed is None else seed)}
        return self._observe(self.begin(given)), {}

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One step; actions in [-1, 1] (clipped) span the environment's range."""
        begun = perf_counter()
        reward, terminated, truncated, info = self._stepped(action)
        simulated = perf_counter()
        observation = self._observe(self._raw)
        self.seconds = (simulated - begun, perf_counter() - simulated)
        ended = terminated or truncated or len(self._actions) >= self._horizon
        flags = {} if self._config.success is None else {"success": self._succeeds(info, ended=ended)}
        return observation, reward, bool(terminated), bool(ended and not terminated), flags

    def _stepped(self, action: NDArray[np.float32]) -> tuple[float, bool, bool, Mapping[str, Any]]:
        self._actions.append(np.array(action, np.float32))
        scaled = self._low + (np.clip(action, -1.0, 1.0).astype(np.float64) + 1.0) * self._half
        with self._heard():
            raw, reward, terminated, truncated, info = self._env.step(scaled.astype(self._env.action_space.dtype))
            self._raw, self._return = raw, self._return + float(reward)
            return float(reward), bool(terminated), bool(truncated), dict(info)

    @contextmanager
    def _heard(self) -> Iterator[None]:
        """An error of the environment's own is the user's to mend: what it said, where, and when."""
        try:
            yield
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            when = f"in step {len(self._actions)}" if self._actions else "at the start"
            said = str(error) or "without a word"
            line = traceback.extract_tb(error.__traceback__)[-1]
            raise UserError(
                f"{self._name} failed {when} of the episode with seed {self._seed}: {type(error).__name__}: {said}\n"
                f"  in {line.filename}:{line.lineno}"
            ) from error

    def _succeeds(self, info: Mapping[str, Any], *, ended: bool) -> bool:
        key = str(self._config.success)
        if key in info:
            return self._counted(info[key]) > self._config.success_threshold
        named = ", ".join(map(str, info)) or "none"
        near = difflib.get_close_matches(key, map(str, info), 1)
        if near and _misspelt(key, near[0]):
            raise UserError(
                f"Gymnasium.success = {key!r}: {self._name} has no such key in its info (it has {named})\n"
                f"  did you mean {near[0]!r}?"
            )
        if ended:
            self._tell(
                "success",
                f"Gymnasium.success = {key!r}, but at the end of an episode {self._name} has no such key in "
                f"its info (it has {named}): such steps count as no success"
                + (f". Did you mean {near[0]!r}?" if near else ""),
            )
        return False

    def _counted(self, value: Any) -> float:
        if isinstance(value, list | tuple | set) and all(isinstance(name, str) for name in value):
            return len(value)
        number = np.asarray(value)
        if number.size != 1 or number.dtype.kind not in "biuf":
            raise UserError(
                f"Gymnasium.success = {self._config.success!r}: there the info of {self._name} has {value!r}; "
                "it must be a number, a truth value or a list of names, which are counted"
            )
        return float(number.item())

    def _tell(self, what: str, text: str) -> None:
        """Once of each kind."""
        if what not in self._told:
            self._told.add(what)
            sys.stderr.write(f"note: {text}\n")  # at once: other processes write there too
            sys.stderr.flush()

    # Observations

    def _observe(self, raw: Any) -> Observation:
        observation: Observation = {"state": self._state(raw)}
        if (size := len(observation["state"])) != self._size:
            raise UserError(f"{self._name} observes {size} numbers now; by its observation space they are {self._size}")
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
                    f"Gymnasium.state = {wanted!r}: the observation of {self._name} has no such key; "
                    f"{'it has ' + ', '.join(sorted(arrays)) if arrays else 'it is one array'}"
                )
            parts = list(parts_of(arrays[wanted]))
        elif wanted == "all":
            parts = [part for part in parts_of(raw) if np.ndim(part) < 3]
        if odd := [part for part in parts if np.asarray(part).dtype.kind not in NUMBERS]:
            raise UserError(
                f"the observation of {self._name} holds something that is no array of numbers ({odd[0]!r}): "
                "name a part that is one with `Gymnasium.state`"
            )
        whole = row(parts, np.float32)
        chosen = self._config.state_indices
        if chosen is None:
            return whole
        if max(chosen, default=0) >= len(whole):
            raise UserError(f"Gymnasium.state_indices: {max(chosen)} is beyond the {len(whole)} numbers of the state")
        return whole[list(chosen)]

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
                f"Gymnasium.picture_key = {key!r}: the observation of {self._name} has no picture, uint8 "
                "[H, W, 3], there"
            )

    def _drawn(self, frames: FrameRequest) -> NDArray[np.uint8]:
        assert self._scene is not None
        out = np.empty((frames.size, frames.size, 3 * max(1, len(self._config.cameras))), np.uint8)
        self._scene.draw(self._config.cameras, self._config.look, frames, out)
        return out

    def _rendered(self) -> NDArray[np.uint8]:
        with self._heard():
            picture = self._env.render()
        if not _is_picture(picture):
            got = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
            raise UserError(f"{self._name} must render uint8 [H, W, 3] (rgb_array); it gave {got}")
        return np.asarray(picture)

    def render(self) -> NDArray[np.uint8]:
        """A picture for people, uint8 [480, 480, 3]."""
        whole = FrameRequest(480, 480)
        if self._scene is None:
            return fitted(self._rendered(), whole)
        out = np.empty((480, 480, 3), np.uint8)
        self._scene.draw(self._config.cameras[:1], "default", whole, out)
        return out

    def dress(self, scene: Changes) -> None:
        """See `rrl.envs.base.ExactSimEnv`. UserError too if the pictures are the environment's own."""
        if self._scene is None or self._config.picture_key is not None:
            raise UserError(
                f"{self._name} draws its own pictures; rrl can change those alone that it draws with MuJoCo"
            )
        self._scene.dress(scene, self._initial.get("qpos"))

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
        if self._config.success is not None:
            words["a step succeeds"] = [f"where {self._config.success} exceeds {self._config.success_threshold:g}"]
        return words | (about.of_model(self._scene.model, self._scene.data, state) if self._scene else {})

    def renderer(self) -> str:
        """What draws: the GL driver's name, where rrl draws a MuJoCo model."""
        return gl.renderer() if self._scene else f"{self._config.id} itself"

    # Episodes as a start and actions

    @property
    def label(self) -> str:
        """The environment as errors name it."""
        return self._name

    @property
    def scene(self) -> Scene | None:
        """Its MuJoCo simulator, if it has one."""
        return self._scene

    @property
    def observable(self) -> bool:
        """Can it be put anywhere and asked what it observes there?"""
        return self._look is not None and self._scene is not None

    def action_range(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(lowest, highest) of the environment's own actions."""
        return self._low, self._low + 2 * self._half

    def begin(self, given: Mapping[str, Any]) -> Any:
        """Start the episode that began with `given`: a reset with its `seed` and its options, and where that leads to
        other positions and velocities than `qpos` and `qvel` (if they are given), with those. The environment's own
        observation. UserError if it can't begin so."""
        if "seed" not in given or any(k not in START and not k.startswith(RESET_OPTIONS) for k in given):
            raise UserError(
                f"an initial state of {self.label} has the arrays {', '.join(START)}; got {', '.join(given) or 'none'}"
            )
        self._seed, self._actions, self._return = seed_of(given["seed"]), [], 0.0
        options = reset_options(given)
        with self._heard(), drawing_from(self._seed):
            # As `gymnasium.Env.reset` does, for those that draw before they call it, or never hand the seed on.
            self._env.unwrapped.np_random = seeding.np_random(self._seed)[0]
            self._raw, _ = self._env.reset(seed=self._seed, **({"options": options} if options else {}))
        if "qpos" in given:
            self._raw = self._moved(self._raw, np.asarray(given["qpos"]), np.asarray(given["qvel"]))
        qpos, qvel = self.physics()
        begun = {"qpos": qpos, "qvel": qvel, **given, "seed": seed_words(self._seed)}
        self._initial = {name: np.array(value, np.float64) for name, value in begun.items()}
        if self._scene is not None:
            self._scene.begin(qpos)
        return self._raw

    def _moved(self, raw: Any, qpos: NDArray[np.float64], qvel: NDArray[np.float64]) -> Any:
        """The observation at a start; `raw`: that of the reset before, which stays if nothing is to be moved."""
        now = self.physics()
        if all(np.array_equal(a, b) for a, b in zip(now, (qpos, qvel), strict=True)):
            return raw
        if self.observable:
            return self.observed_at(qpos, qvel)
        apart = max(np.abs(a - b).max(initial=0.0) for a, b in zip(now, (qpos, qvel), strict=True))
        if apart > SAME:
            raise UserError(
                f"a reset of {self.label} with the recorded seed gives positions or velocities that are {apart:.2g} "
                "from the recorded ones (another version?), and it can't be set to those: it has no `_get_obs()` that "
                "would tell what it observes then"
            )
        return raw

    def observed_at(self, qpos: NDArray[np.float64], qvel: NDArray[np.float64]) -> Any:
        """The environment's own observation at these positions and velocities. UserError if it can't be asked."""
        if self._look is None or self._scene is None:
            raise UserError(f"{self.label} can't be put into a recorded state: it has no `_get_obs()` to observe it by")
        check_state(self.label, self._scene.physics(), qpos, qvel)
        self._scene.put(qpos, qvel)
        return self._look()

    def show(self, qpos: NDArray[np.float64], qvel: NDArray[np.float64]) -> Observation:
        """The observation of a given simulator state, without stepping."""
        return self._observe(self.observed_at(qpos, qvel))

    def initial(self) -> dict[str, NDArray[np.float64]]:
        """How the episode began: its seed, the positions and velocities (empty where MuJoCo doesn't simulate it), and
        what options its reset was given."""
        return {name: value.copy() for name, value in self._initial.items()}

    def get_state(self) -> Observation:
        """The episode's start and its actions so far, and `seen`, which repeating them must give."""
        shape = (0, *self.action_space.shape)  # type: ignore[misc]
        actions = np.stack(self._actions) if self._actions else np.empty(shape, np.float32)
        start = {f"initial_{name}": value for name, value in self.initial().items()}
        return {**start, "actions": actions, "seen": self.seen()}

    def set_state(self, state: Arrays) -> Observation:
        """Repeat the episode up to there; returns the last observation. Where that gives another one, it is told.
        States of earlier versions hold its `seed` alone."""
        others = ("actions", "seen")
        self.begin({name.removeprefix("initial_"): value for name, value in state.items() if name not in others})
        for action in state["actions"]:
            self._stepped(action)
        before, now = state.get("seen"), self.seen()  # checkpoints of earlier versions have none
        if before is not None and not np.array_equal(before, now, equal_nan=True):
            self._tell(
                "repeats",
                f"{self._name} does not repeat itself: after the same {len(self._actions)} actions from seed "
                f"{self._seed} a number is off by {np.nanmax(np.abs(before - now)):.3g}. The interrupted episode goes "
                "on from there, and the run isn't the one that it would have been",
            )
        return self._observe(self._raw)

    def seen(self) -> NDArray[np.float64]:
        """What the episode came to: the sum of its rewards, and every number of its last observation but pictures."""
        return np.append(self._return, flat(self._raw))

    def physics(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(qpos, qvel) of its MuJoCo simulator now; empty arrays where it has none."""
        if self._scene is None:
            return np.empty(0), np.empty(0)
        return self._scene.physics()

    def close(self) -> None:
        """Close the environment."""
        self._scene = None
        with self._heard():
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


MISSPELT = 0.85


def _misspelt(key: str, name: str) -> bool:
    """Is a key almost surely meant as the name of another? `stage_2` beside `stage_1` may still come."""
    if any(letter.isdigit() for letter in key):
        return False
    likeness = difflib.SequenceMatcher(None, key.lower(), name.lower()).ratio()
    return likeness > MISSPELT or sorted(key) == sorted(name)  # letters that changed places


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """What draws from numpy's or Python's global generators meanwhile draws from this seed; both are put back."""
    kept = np.random.get_state(), random.getstate()  # noqa: NPY002 (strangers draw from it)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(kept[0])  # noqa: NPY002
        random.setstate(kept[1])


def _is_picture(value: Any) -> bool:
    whole = isinstance(value, np.ndarray) and value.ndim == 3 and value.size and value.shape[2] == 3
    return bool(whole) and value.dtype == np.uint8


def trace(env: GymnasiumSim, before: bool) -> list[NDArray[np.float64]]:
    """What the first steps of an episode with seed 0 and set actions come to, with another one `before` it or not: the
    same wherever an environment depends on seed and actions alone."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (TRIED, *env.action_space.shape)).astype(np.float32)  # type: ignore[misc]
    if before:
        env.reset(seed=1)
        env.step(actions[0])
    env.reset(seed=0)
    found = [env.seen()]
    for action in actions:
        ended = env.step(action)[2:4]
        found.append(env.seen())
        if any(ended):
            break
    return found


TRIED = 5
"""Steps in which an environment that does not repeat itself should show it."""


def _made(config: Settings) -> Any:
    """The environment without its limit of steps, which is counted here, and without gymnasium's checker."""
    settings = {"render_mode": "rgb_array", **dict(config.kwargs)}
    gym_packages.mend(gym_packages.package_of(config.id))
    try:
        with drawing_from(0):
            return gymnasium.make(config.id, max_episode_steps=-1, disable_env_checker=True, **settings)
    except (Exception, SystemExit) as error:  # whatever a stranger's environment raises
        raise UserError(f"{config.title} can't be made: {type(error).__name__}: {error}") from error


def _range(name: str, space: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(lowest value, half the width) of each number of an action."""
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise UserError(f"{name} has actions {space}; rrl's agents act in a box of continuous numbers, such as Box(7,)")
    if space.dtype is None or space.dtype.kind != "f" or not space.shape[0]:
        raise UserError(f"{name} has actions {space}; rrl's agents act in one or more continuous numbers")
    if not space.is_bounded():
        raise UserError(f"{name} has actions without bounds, {space}: what should -1 and 1 mean?")
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    return low, (high - low) / 2


def _example(space: Any) -> Any:
    """An observation's shapes: zeros, and None for what is no array."""
    if isinstance(space, spaces.Dict):
        return {key: _example(part) for key, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(map(_example, space))
    return None if space.shape is None else np.zeros(space.shape, space.dtype)
