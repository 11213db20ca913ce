"""Minari datasets (Farama): local ones by id or folder, remote ones by id where there is internet.

The library's own way of opening a dataset may make the environment that the dataset names, and a name may be
any function with any arguments. So the library finds, downloads and decodes here, and is never asked to open
a dataset.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rrl.demos.importers.base import Array, Recorded, array, matrix
from rrl.demos.importers.hdf5 import check_hdf5
from rrl.envs.base import RESET_OPTIONS
from rrl.registry import UserError


def read_minari(source: str) -> list[Recorded]:
    """The episodes of a Minari dataset, such as `D4RL/door/human-v2`.

    The initial state is what the recorder gave to `reset` (`options["initial_state_dict"]`), else the first
    one among the infos; beside it stand the seed and the options of that reset. UserError if there is no such dataset,
    or its actions are no row of numbers.
    """
    folder = _folder(source)
    about = _about(folder)
    storage = _storage(folder, about)
    bounds = _bounds(source, storage.action_space) if "action_space" in about else None
    count = range(storage.total_episodes)
    pairs = zip(storage.get_episodes(count), storage.get_episode_metadata(count), strict=True)
    return [_episode(f"{source}, episode {i}", *pair, bounds) for i, pair in enumerate(pairs)]


def minari_environment(source: str) -> dict[str, Any]:
    """gymnasium's description of the environment that a Minari dataset was recorded in; nothing if there is none."""
    spec = _about(_folder(source)).get("env_spec")
    return dict(json.loads(spec)) if isinstance(spec, str) else {}


def _bounds(source: str, space: Any) -> tuple[Array, Array] | None:
    """(lowest, highest) of the dataset's actions; None: without ends. UserError if they are no row of numbers."""
    import gymnasium

    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
        raise UserError(
            f"{source} has actions {space}; rrl's agents act in a box of continuous numbers, such as Box(7,): it can't "
            "be learnt from"
        )
    return (space.low.astype(np.float64), space.high.astype(np.float64)) if space.is_bounded() else None


def _about(folder: Path) -> dict[str, Any]:
    """The dataset's metadata."""
    from minari.dataset.minari_storage import MinariStorage

    return dict(MinariStorage.read_raw_metadata(folder))


def _folder(source: str) -> Path:
    """Where the dataset's files are: a folder, a local dataset's, or a downloaded one's."""
    try:
        import minari
    except ImportError as error:
        raise UserError("Minari datasets need minari: pip install 'rrl[demos]'") from error
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.storage.datasets_root_dir import get_dataset_path

    if Path(source).is_dir():
        inside = Path(source) / "data"
        return inside if inside.is_dir() else Path(source)
    try:
        version = parse_dataset_id(source.rpartition("://")[2])[-1]
        local = Path(get_dataset_path(source)) / "data"
        if not local.is_dir():
            if version is None:
                raise ValueError("an id ends in a version, such as -v0")
            minari.download_dataset(source)
        return local
    except ImportError as error:  # in words that name the package
        raise UserError(
            f"{source} is no Minari dataset of this machine (`minari list local` names them), and to download one "
            f"needs a package that is not installed: pip install 'rrl[demos]' ({error})"
        ) from error
    except Exception as error:  # a malformed id; no such dataset; no internet, in the words of some library
        raise UserError(
            f"{source} is no file or folder here, no Minari dataset of this machine (`minari list local` names them), "
            f"and none that could be downloaded: {error}"
        ) from error


def _storage(folder: Path, about: Mapping[str, Any]) -> Any:
    """What decodes the files, from the spaces that the metadata describe."""
    import gymnasium
    from minari.dataset._storages import get_minari_storage
    from minari.serialization import deserialize_space

    if (folder / "main_data.hdf5").exists():
        import h5py

        with h5py.File(folder / "main_data.hdf5", "r") as file:
            check_hdf5(str(folder), file)
    kind = about.get("data_format", "hdf5")
    spaces = []
    for name in ("observation_space", "action_space"):
        if isinstance(about.get(name), str):
            spaces.append(deserialize_space(about[name]))
        elif kind == "hdf5":  # arrays decode themselves
            spaces.append(gymnasium.spaces.Box(-np.inf, np.inf, (1,)))
        else:
            raise UserError(
                f"the Minari dataset in {folder} does not describe its {name}; to find it out, an "
                "environment that the file names would have to be run, which is refused"
            )
    pictures = {"jpeg_encoding": bool(about["jpeg_encoding"])} if "jpeg_encoding" in about else {}
    return get_minari_storage(kind)(folder, *spaces, **pictures)


def _episode(
    where: str, episode: Mapping[str, Any], about: Mapping[str, Any], bounds: tuple[Array, Array] | None
) -> Recorded:
    infos = episode.get("infos") or {}
    options = about.get("options") if isinstance(about.get("options"), Mapping) else {}
    starts = [(options or {}).get("initial_state_dict"), options, *_first_states(infos)]
    initial = next((s for s in starts if isinstance(s, Mapping) and {"qpos", "qvel"} <= set(s)), {})
    reset = {} if about.get("seed") is None else {"seed": about["seed"]}
    reset |= dict(_numbers(options or {}, RESET_OPTIONS))

    def series(name: str) -> Array | None:
        values = matrix(infos[name], f"{where}: {name}") if name in infos else None
        # `rrl demos export` writes NaN for a last state that nobody recorded.
        unknown = values is not None and len(values) > 0 and bool(np.isnan(values[-1]).all())
        return values[:-1] if values is not None and unknown else values

    return Recorded(
        array(episode["actions"], f"{where}: actions", 2),
        {**initial, **reset},
        series("qpos"),
        series("qvel"),
        _rows(episode["observations"], f"{where}: observations"),
        bounds=bounds,
    )


def _numbers(options: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """The arrays of real numbers among a reset's options, those of groups by their path."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif np.ndim(value) and np.asarray(value).dtype.kind == "f":
            yield f"{prefix}{name}", np.asarray(value)


def _rows(observations: Any, what: str) -> Array | None:
    """Observations as rows of numbers: those of dicts by the order of their keys, pictures left out. None if they are
    anything else."""
    if not isinstance(observations, Mapping):
        return matrix(observations, what)
    parts = [part for key in sorted(observations) if (part := _rows(observations[key], what)) is not None]
    return np.concatenate(parts, axis=1) if parts else None


def _first_states(infos: Any) -> Iterator[dict[str, Any]]:
    """The first row of the infos, and of groups in them such as `initial_state_dict` or `state`."""
    if isinstance(infos, Mapping):
        yield {k: v[0] for k, v in infos.items() if np.ndim(v) > 1 and len(v)}
        for value in infos.values():
            yield from _first_states(value)
