"""Minari datasets (Farama): local ones by id or folder, remote ones by id where there is internet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rrl.importers.base import Array, Recorded, array
from rrl.registry import UserError


def read_minari(source: str) -> list[Recorded]:
    """The episodes of a Minari dataset, such as `D4RL/door/human-v2`.

    The initial state is what the recorder gave to `reset` (`options["initial_state_dict"]`), else the first
    one among the infos. UserError if there is neither, or no such dataset.
    """
    try:
        import minari
        from minari.dataset.minari_dataset import MinariDataset
    except ImportError as error:
        raise UserError("Minari datasets need minari: pip install 'rrl[demos]'") from error
    try:
        if Path(source).is_dir():
            folder = Path(source) / "data" if (Path(source) / "data").is_dir() else Path(source)
            dataset = MinariDataset(folder)
        else:
            dataset = minari.load_dataset(source, download=True)
        metadata = list(dataset.storage.get_episode_metadata(dataset.episode_indices))
        return [
            _episode(f"{source}, episode {i}", episode, about)
            for i, (episode, about) in enumerate(zip(dataset.iterate_episodes(), metadata, strict=True))
        ]
    except UserError:
        raise
    except Exception as error:  # the library raises what its storages and downloads raise
        raise UserError(
            f"{source} is no Minari dataset that can be read here (local ones: `minari list local`; "
            f"remote ones need internet): {error}"
        ) from error


def _episode(where: str, episode: Any, about: Mapping[str, Any]) -> Recorded:
    infos: Mapping[str, Any] = episode.infos or {}
    options = about.get("options") or {}
    given = options.get("initial_state_dict") or _first(infos.get("initial_state_dict"))
    if given is None:
        given = {k: v[0] for k, v in infos.items() if np.ndim(v) > 1}
    if "qpos" not in given or "qvel" not in given:
        raise UserError(
            f"{where}: no initial state to replay from: neither reset's options nor infos hold qpos and qvel"
        )
    initial = {str(k): array(v, f"{where}: {k}") for k, v in given.items() if np.ndim(v)}

    def series(name: str) -> Array | None:
        return array(infos[name], f"{where}: {name}") if np.ndim(infos.get(name, 0)) == 2 else None

    observations = episode.observations
    return Recorded(
        array(episode.actions, f"{where}: actions"),
        initial,
        series("qpos"),
        series("qvel"),
        array(observations, f"{where}: observations") if isinstance(observations, np.ndarray) else None,
    )


def _first(values: Any) -> dict[str, Any] | None:
    """The first of a recorded series of dicts."""
    return {k: v[0] for k, v in values.items()} if isinstance(values, Mapping) else None
