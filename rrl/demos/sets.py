"""Sets of recorded episodes, and their files.

A set is one `.npz` (actions, states, what the task randomised) beside one `.json` (where it comes
from). It holds no pictures and no features: those depend on the run's camera, look and encoder, and are
made by replaying the actions (and then cached). Rewards are the run's too.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal
from zipfile import is_zipfile

import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic import Field

from rrl.config import ginfile
from rrl.envs.base import EnvFactory, find_recorded
from rrl.machine.paths import new_file, unusable
from rrl.machine.processes import in_bytes
from rrl.registry import UserError, build
from rrl.rollout.data import Episode
from rrl.store.arrays import npz as npz_file
from rrl.store.files import write_json, writing
from rrl.store.schema import misfit, parsed, text_of

FORMAT = 1
PER_EPISODE = ("seeds", "returns")
"""Facts that list a value for each episode."""
LARGEST = 4 * 2**30
"""Bytes that a set may unpack to: a million steps of the hand take a tenth of it."""
EPISODES = 10**6
LONGEST = 2**31 - 2
"""Actions of an episode: steps are counted in an int32."""
WIDEST = 2**16
"""Numbers of an action, of a state, or of one array of an initial state."""


class _Facts(pydantic.BaseModel):
    """What is asked of the facts beside a set; more may stand there for people."""

    model_config = pydantic.ConfigDict(strict=True, allow_inf_nan=False)

    format: Literal[1]
    checksum: str
    env: str
    environment: str = ""
    settings: list[str] = []
    seeds: list[int] = []
    returns: list[float] = []
    policy: str = ""
    horizon: Annotated[str, Field(pattern=r"^[1-9]\d{0,9}$")] = "1"


@dataclass(frozen=True)
class Demos:
    """Recorded episodes of one task, E of them with T actions in all."""

    lengths: NDArray[np.int64]
    """[E]: number of actions of each episode."""
    actions: NDArray[np.float32]
    """[T, m]: in the environment's units (it clips to [-1, 1])."""
    qpos: NDArray[np.float32]
    """[T + E, nq]: positions before each action and after the last (m, rad)."""
    qvel: NDArray[np.float16]
    """[T + E, nv]: velocities likewise (m/s, rad/s); half precision, for playback by states only."""
    flags: Mapping[str, NDArray[np.bool_]]
    """Per goal flag [T]: up after the step?"""
    initial: Mapping[str, NDArray[np.float64]]
    """[E, ...]: the initial state and what the task randomised, as `SimEnv.reset` takes it."""
    facts: Mapping[str, Any]
    """Environment and its settings, MuJoCo version, policy, seeds and success, for people and for checks."""

    def __len__(self) -> int:
        return len(self.lengths)

    def script(self, i: int) -> Episode:
        """Episode i as an open-loop replay from its recorded initial state.

        Its seed is i: it decides nothing but noise on observations, which no two of them should share.
        """
        start = int(self.lengths[:i].sum())
        actions = self.actions[start : start + int(self.lengths[i])]
        return Episode(i, initial={k: v[i] for k, v in self.initial.items()}, actions=actions)

    def states(self, i: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(qpos [L + 1, nq], qvel [L + 1, nv]) of episode i."""
        start = int(self.lengths[:i].sum()) + i
        rows = slice(start, start + int(self.lengths[i]) + 1)
        return self.qpos[rows].astype(np.float64), self.qvel[rows].astype(np.float64)

    def success(self, flag: str, steps: int) -> NDArray[np.bool_]:
        """[E]: `flag` up in more than `steps` recorded steps."""
        index = np.repeat(np.arange(len(self)), self.lengths)
        return np.bincount(index, self.flags[flag], len(self)) > steps

    def pick(self, chosen: Sequence[int]) -> Demos:
        """These episodes, in this order."""
        step_of = np.repeat(np.arange(len(self)), self.lengths)
        state_of = np.repeat(np.arange(len(self)), self.lengths + 1)
        steps = np.concatenate([np.flatnonzero(step_of == i) for i in chosen])
        states = np.concatenate([np.flatnonzero(state_of == i) for i in chosen])
        listed = [k for k in PER_EPISODE if len(self.facts.get(k, ())) == len(self)]
        return replace(
            self,
            lengths=self.lengths[list(chosen)],
            actions=self.actions[steps],
            qpos=self.qpos[states],
            qvel=self.qvel[states],
            flags={k: v[steps] for k, v in self.flags.items()},
            initial={k: v[list(chosen)] for k, v in self.initial.items()},
            facts={**self.facts, **{k: [self.facts[k][i] for i in chosen] for k in listed}},
        )

    def repeated(self, times: int) -> Demos:
        """As if each action had been held so many times longer: means of that many actions in turn (fewer where an
        episode ends), states and flags as they were then. Open-loop, so that a replay takes other ways."""
        starts = np.cumsum(self.lengths) - self.lengths
        grid = [
            (start, length, np.arange(0, length, times)) for start, length in zip(starts, self.lengths, strict=True)
        ]
        before = np.concatenate([start + first for start, _, first in grid])
        after = np.concatenate([start + np.minimum(first + times, length) for start, length, first in grid])
        states = np.concatenate([start + i + np.append(first, length) for i, (start, length, first) in enumerate(grid)])
        facts = {**self.facts, "action_repeat": str(times * self.action_repeat)}
        if "horizon" in facts:
            facts["horizon"] = str(-(-int(facts["horizon"]) // times))
        return replace(
            self,
            lengths=-(-self.lengths // times),
            actions=np.add.reduceat(self.actions.clip(-1, 1), before) / (after - before)[:, None].astype(np.float32),
            qpos=self.qpos[states],
            qvel=self.qvel[states],
            flags={k: v[after - 1] for k, v in self.flags.items()},
            facts=facts,
        )

    @property
    def action_repeat(self) -> int:
        """Control steps of a recorded action; 1 where the facts tell no number."""
        told = str(self.facts.get("action_repeat"))
        return int(told) if told.isdecimal() and int(told) > 0 else 1

    def checksum(self) -> str:
        """SHA-256 of what replays use: actions, lengths, initial states and positions."""
        return _digest({"actions": self.actions, "lengths": self.lengths, "qpos": self.qpos, **self.initial})

    def contents(self) -> str:
        """SHA-256 of every array: of velocities and flags too, which playback by states shows."""
        return _digest(self.arrays())

    def misfit(self) -> str:
        """In words, the first array that has not the shape or the type of a set's; empty if all have."""
        whole = self.lengths.ndim == 1 and self.lengths.dtype in (np.int32, np.int64) and len(self) > 0
        if not whole or self.lengths.min() < 1 or self.lengths.max() > LONGEST:
            return f"lengths must be whole numbers from 1 on, one for each episode; got {_in_words(self.lengths)}"
        steps, states = int(self.lengths.sum()), int(self.lengths.sum()) + len(self)
        places: list[tuple[str, NDArray[Any], str, int, int | None]] = [
            ("actions", self.actions, "f", steps, 2),
            ("qpos", self.qpos, "f", states, 2),
            ("qvel", self.qvel, "f", states, 2),
            *((f"flag.{name}", values, "b", steps, 1) for name, values in self.flags.items()),
            *((f"initial.{name}", values, "fiub", len(self), None) for name, values in self.initial.items()),
        ]
        for name, values, kinds, rows, dimensions in places:
            fits = values.ndim == dimensions if dimensions else values.ndim > 0
            if fits and math.prod(values.shape[1:]) > WIDEST:
                return f"{name} must have rows of at most {WIDEST:,} numbers; got {_in_words(values)}"
            if not fits or len(values) != rows or values.dtype.kind not in kinds:
                kind = {"f": "floating-point", "b": "bool"}.get(kinds, "numbers")
                shape = f" in {dimensions} dimension{'s' * (dimensions > 1)}" if dimensions else ""
                return f"{name} must be {kind}, {rows:,} rows{shape}; got {_in_words(values)}"
        for name in PER_EPISODE:
            if len(listed := self.facts.get(name) or range(len(self))) != len(self):
                return f"{name} must be of {len(self)} episodes; got {len(listed)}"
        return ""

    def fault(self) -> str:
        """In words, the first numbers that are not finite, of what is replayed or played back; empty if there are
        none."""
        whole = np.arange(len(self))
        step, state = np.repeat(whole, self.lengths), np.repeat(whole, self.lengths + 1)
        places: list[tuple[str, NDArray[Any], NDArray[np.int64]]] = [
            ("actions", self.actions, step),
            ("qpos", self.qpos, state),
            ("qvel", self.qvel, state),
            *((name, values, whole) for name, values in self.initial.items()),
        ]
        for name, values, episode in places:
            if len(bad := np.argwhere(~np.isfinite(values))):
                return f"{name} of episode {episode[bad[0][0]]} holds {values[tuple(bad[0])]:g}"
        return ""

    @property
    def origin(self) -> str:
        """Who acted: `policy NAME`, or what the facts say (`human`), or `unknown`."""
        policy = self.facts.get("policy")
        return f"policy {Path(policy).stem}" if policy else str(self.facts.get("origin", "unknown"))

    def save(self, path: Path) -> None:
        """Write `path`.npz and `path`.json; refuses to overwrite either."""
        path = free(path)
        if found := self.misfit() or self.fault():
            raise UserError(f"{path} is not written: {found}")
        path.parent.mkdir(parents=True, exist_ok=True)
        # Checksums of these arrays, not of their source.
        checksums = {"checksum": self.checksum(), "contents": self.contents()}
        try:
            with writing(path) as file:
                np.savez_compressed(file, allow_pickle=False, **self.arrays())
            write_json(path.with_suffix(".json"), {**self.facts, "format": FORMAT, **checksums})
        except BaseException:
            path.unlink(missing_ok=True)  # half a set would stand in the next try's way
            raise

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays by their names in a file."""
        arrays: dict[str, NDArray[Any]] = {name: getattr(self, name) for name in ("lengths", "actions", "qpos", "qvel")}
        arrays |= {f"flag.{k}": v for k, v in self.flags.items()}
        return arrays | {f"initial.{k}": v for k, v in self.initial.items()}


def _in_words(values: NDArray[Any]) -> str:
    return f"{values.dtype} {list(values.shape)}"


def _unpacked(path: Path, facts: Mapping[str, Any]) -> Demos:
    """The set in an .npz. ValueError if it is none: told before its arrays are unpacked, where their sizes tell it."""
    with npz_file(path) as packed:
        if packed.size > LARGEST:
            raise ValueError(f"it unpacks to {in_bytes(packed.size)}, and a set to {in_bytes(LARGEST)} at most")
        announced = _of_arrays(packed.announced, facts)
        if announced.lengths.size > EPISODES:
            raise ValueError(f"it holds {announced.lengths.size:,} episodes, and a set {EPISODES:,} at most")
        if why := replace(announced, lengths=packed.read("lengths")).misfit():
            raise ValueError(why)
        return _of_arrays({name: packed.read(name) for name in announced.arrays()}, facts)


def _of_arrays(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> Demos:
    """A set of its arrays by their names in a file."""
    return Demos(
        **{name: arrays[name] for name in ("lengths", "actions", "qpos", "qvel")},
        flags={k[5:]: v for k, v in arrays.items() if k.startswith("flag.")},
        initial={k[8:]: v for k, v in arrays.items() if k.startswith("initial.")},
        facts=facts,
    )


def _digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def facts_of(env: EnvFactory) -> dict[str, Any]:
    """What a set says of the environment that it is recorded in; `environment` finds that again."""
    settings = ginfile.dumps(env.config).splitlines()
    return {**env.facts(), "environment": type(env).__name__, "settings": settings}


def environment(facts: Mapping[str, Any]) -> EnvFactory.Config:
    """The environment that a set with these facts was recorded in: by its settings, or in sets of earlier versions,
    which don't hold them, by its name and variant. UserError if there is none here."""
    if "settings" not in facts:
        return find_recorded(facts)
    try:
        config = ginfile.loads("\n".join(facts["settings"]), "recorded settings", root=facts.get("environment", ""))
    except ginfile.ConfigError as error:
        raise UserError(f"this version of rrl can't make the environment of {facts['env']} again:\n{error}") from error
    if not isinstance(config, EnvFactory.Config):
        raise UserError(f"a set can't be recorded in {facts['environment']}, which is no environment")
    return config


def with_objects(config: EnvFactory.Config) -> EnvFactory.Config:
    """The same environment with a state vector that holds the task's objects, if it has such a one."""
    config = config.whole()
    env: EnvFactory = build(config)
    return _bound(config, env.oracle) if env.blind_state else config


def robot_alone(config: EnvFactory.Config) -> EnvFactory.Config:
    """The same environment with a state vector that holds the robot alone, if it has such a one."""
    env: EnvFactory = build(config)
    return config if env.blind_state else _bound(config, env.proprioception)


def _bound(config: EnvFactory.Config, binding: str) -> EnvFactory.Config:
    """The configuration with this binding; as it is, if that is empty or has no place beside its other settings, such
    as noise on joint angles."""
    if not binding:
        return config
    try:
        bound = ginfile.loads(ginfile.dumps(config), overrides=[binding], root=config.component.__name__)
    except ginfile.ConfigError:
        return config
    assert isinstance(bound, EnvFactory.Config)
    return bound


def npz(path: Path) -> Path:
    """The path with its .npz, typed or not; a folder's without a name, such as `.`, as it is."""
    return path if path.suffix == ".npz" or not path.name else path.with_name(path.name + ".npz")


def free(path: Path) -> Path:
    """`npz(path)`; UserError if it or its .json exists, or can't be written."""
    file = new_file(npz(path))
    new_file(file.with_suffix(".json"))
    return file


def load(path: Path) -> Demos:
    """Read a set written by `Demos.save`. UserError if it isn't one, or was changed."""
    path = npz(path)
    if why := unusable(path):
        raise UserError(f"no demonstrations: {why}; shipped ones are {', '.join(shipped())}")
    if why := unusable(path.with_suffix(".json")):
        raise UserError(
            f"{path} is not a set of demonstrations that rrl wrote: {why}\n"
            "  put the .json of the set beside it; other people's files are taken over by `rrl demos import`"
        )
    try:
        facts = parsed(text_of(path.with_suffix(".json")))
        if why := misfit(_Facts, facts):
            raise ValueError(f"{path.with_suffix('.json').name} says {why}")
        demos = _unpacked(path, facts)
    except (OSError, ValueError, KeyError) as error:
        why = f"it has no array {error}" if isinstance(error, KeyError) else str(error)
        why = why if is_zipfile(path) else "it is no .npz, or cut short"
        raise UserError(
            f"{path} is not a set of demonstrations that rrl wrote: {why}\n"
            "  make the set anew; other people's files are taken over by `rrl demos import`"
        ) from error
    whole = facts.get("contents", demos.contents()) == demos.contents()  # earlier versions wrote the other alone
    if facts.get("checksum") != demos.checksum() or not whole:
        raise UserError(f"{path} does not match the checksum in its .json: the file was changed or cut short")
    if found := demos.fault():
        raise UserError(f"nothing can be learnt from {path}: {found}")
    return demos


def shipped() -> dict[str, Path]:
    """Name -> path of the sets that come with the package, such as `adroit_door_paper`."""
    folder = Path(str(files("rrl"))) / "data" / "demos"
    return {path.stem: path for path in sorted(folder.glob("*.npz"))}
