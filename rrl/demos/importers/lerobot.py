"""LeRobotDatasets of versions 2 and 3: what their Parquet and JSON files hold; films are left alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from rrl.demos.importers.base import ROW, Array, Recorded, array, fits
from rrl.demos.lerobot import EPISODES, FINAL, INFO, INITIAL, STATE, parquet
from rrl.registry import UserError


def is_lerobot(folder: Path) -> bool:
    """Does such a dataset stand here?"""
    return (folder / INFO).is_file()


def read_lerobot(source: str) -> list[Recorded]:
    """The episodes of a dataset's folder.

    How they began is told by the columns that `rrl demos export` adds, or else by the first row of features whose names
    end in `.qpos`, `.qvel` and what the task randomises; UserError if by neither. They may hold pictures as films or
    images: these are not read.
    """
    folder = Path(source)
    if not is_lerobot(folder):
        raise UserError(f"{source} is no LeRobotDataset: it has no {INFO}")
    about = json.loads((folder / INFO).read_text(encoding="utf-8"))
    version = str(about["codebase_version"])
    if not version.startswith(("v2.", "v3.")):
        raise UserError(f"{source} is a LeRobotDataset {version}, where v2 and v3 are read: convert it with LeRobot")
    steps, begun = _steps(source), _rows(source)
    index, first = np.unique(steps["episode_index"][:, 0].astype(int), return_index=True)
    ours = bool(begun) or any(name.startswith(STATE) for name in steps)
    if ours and not begun.keys() >= set(index):
        raise UserError(
            f"{source} comes from `rrl demos export`, but {EPISODES} no longer says how its episodes began, as after "
            "LeRobot's tools that split, merge or delete: import the dataset that was exported"
        )
    if not ours and not {"qpos", "qvel"} <= _by_last_word(steps).keys():
        raise UserError(_no_start(source, about, steps))
    return [
        _episode(f"{source}, episode {i}", {name: values[a:b] for name, values in steps.items()}, begun.get(int(i), {}))
        for i, (a, b) in zip(index, pairwise([*first, len(steps["action"])]), strict=True)
    ]


def _episode(where: str, steps: Mapping[str, Array], row: Mapping[str, Any]) -> Recorded:
    if "frame_index" in steps and (steps["frame_index"][:, 0] != np.arange(len(steps["action"]))).any():
        raise UserError(f"{where}: its steps are not numbered 0, 1, 2 ... in `frame_index`: some are missing or double")
    named = _by_last_word(steps)
    initial: dict[str, Any] = {
        name.removeprefix(INITIAL): array(values, f"{where}: {name}")
        for name, values in row.items()
        if name.startswith(INITIAL)
    }

    def series(name: str) -> Array | None:
        last = row.get(FINAL + name)
        if name not in named or last is None:
            return named.get(name)
        return np.concatenate([named[name], array([last], f"{where}: {FINAL}{name}", 2)])

    width = steps["action"].shape[1]
    return Recorded(
        actions=steps["action"],
        initial=initial or {name: values[0] for name, values in named.items()},
        qpos=series("qpos"),
        qvel=series("qvel"),
        observations=None if row else steps.get("observation.state"),  # of ours, how each begins is known exactly
        bounds=(-np.ones(width), np.ones(width)) if row else None,
    )


def _by_last_word(steps: Mapping[str, Array]) -> dict[str, Array]:
    """The features by the last word of their names: of `observation.qpos` and our `rrl.qpos`, ours is `qpos`."""
    return {name.rpartition(".")[2]: steps[name] for name in sorted(steps, key=lambda name: name.startswith(STATE))}


def _no_start(source: str, about: Mapping[str, Any], steps: Mapping[str, Array]) -> str:
    has = ", ".join(f"{name} {values.shape[1:]}" for name, values in steps.items() if not name.endswith("index"))
    robot = about.get("robot_type")
    return (
        f"{source} does not say in which state of the simulator its episodes begin, so their actions can't be replayed "
        f"here. It has {has}{f'; robot {robot}' if robot else ''}.\nWhat would do, if it was recorded in a simulator: "
        "features whose names end in .qpos and .qvel, the positions and velocities of all joints of the task's model "
        "before each action, and in .NAME for whatever else the task randomises; `rrl demos export --format lerobot` "
        "writes them. Recordings of a real robot can't be replayed in a simulator"
    )


def _steps(source: str) -> dict[str, Array]:
    """All features that are numbers or vectors, [T, n] each, by episode and step; UserError if there are no actions."""
    files = sorted((Path(source) / "data").rglob("*.parquet"))
    parts = [_Table(source, file) for file in files]
    fits(source, sum(part.numbers for part in parts))
    read = [part.read() for part in parts if part.rows]
    names = set.intersection(*(set(part) for part in read)) if read else set()
    if missing := {"action", "episode_index"} - names:
        raise UserError(
            f"{source}: the Parquet files in its folder data need {', '.join(sorted(missing))}; "
            f"{len(files)} files have {', '.join(sorted(names)) or 'nothing in common'}"
        )
    steps = {name: np.concatenate([part[name] for part in read]) for name in sorted(names)}
    order = np.lexsort([steps[name][:, 0] for name in ("frame_index", "episode_index") if name in steps])
    return {name: values[order] for name, values in steps.items()}


def _rows(source: str) -> dict[int, dict[str, Any]]:
    """Per episode, the columns that `rrl demos export` adds to its row; empty if there are none."""
    rows: dict[int, dict[str, Any]] = {}
    for file in sorted((Path(source) / EPISODES).rglob("*.parquet")):
        opened = parquet().ParquetFile(file)
        ours = [name for name in opened.schema_arrow.names if name.startswith((INITIAL, FINAL))]
        if ours:
            table = opened.read(columns=["episode_index", *ours])
            rows |= {row.pop("episode_index"): row for row in table.to_pylist()}
    return rows


class _Table:
    """A Parquet file of steps, of which nothing but numbers and vectors is read."""

    def __init__(self, source: str, file: Path) -> None:
        self.where = f"{source}, {file.name}"
        self.opened = parquet().ParquetFile(file)
        about = self.opened.metadata
        self.rows = about.num_rows
        self.names = [field.name for field in self.opened.schema_arrow if _is_vector(field.type)]
        begin = tuple(f"{name}." for name in self.names)  # of a column's path: `action.list.element`, or `action`
        groups = [about.row_group(g) for g in range(about.num_row_groups)]
        leaves = [group.column(c) for group in groups for c in range(group.num_columns)]
        self.numbers = sum(leaf.num_values for leaf in leaves if f"{leaf.path_in_schema}.".startswith(begin))
        """That it claims to hold."""

    def read(self) -> dict[str, Array]:
        """[rows, n] each; what has another size in another row is left out."""
        import pyarrow.compute as pc
        from pyarrow.types import is_nested

        table, found = self.opened.read(columns=self.names), {}
        for name in self.names:
            values = table.column(name).combine_chunks()
            if is_nested(values.type):
                sizes = pc.min_max(pc.list_value_length(values)).as_py()
                if values.null_count or sizes["min"] != sizes["max"] or not 0 < sizes["max"] <= ROW:
                    continue
                values = values.flatten()
            numbers = array(values.to_numpy(zero_copy_only=False), f"{self.where}: {name}")
            found[name] = numbers.reshape(self.rows, -1)
        return found


def _is_vector(kind: Any) -> bool:
    """Is a column of this type a number or a list of numbers in each row, and no picture?"""
    from pyarrow import types

    if types.is_list(kind) or types.is_large_list(kind) or (types.is_fixed_size_list(kind) and kind.list_size <= ROW):
        kind = kind.value_type
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))
