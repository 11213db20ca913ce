"""LeRobotDataset v3.0 on disk, as LeRobot's policies train on it: Parquet, JSON, and films of the cameras.

A folder with `meta/` (what there is, a row for each episode, statistics), `data/` (a row for each step) and `videos/`
(many episodes in a film). LeRobot itself is not needed. What a replay needs beyond its layout goes into columns of our
own, which LeRobot loads and its policies don't look at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl.registry import UserError
from rrl.store.files import making, read_json, write_json

VERSION = "v3.0"
INFO, OURS = "meta/info.json", "meta/rrl.json"
EPISODES = "meta/episodes"
STATE = "rrl."
"""Begins our columns of a step: `rrl.qpos` and `rrl.qvel`, before the action."""
INITIAL, FINAL = "rrl/initial/", "rrl/final/"
"""Begin our columns of an episode: how it began, as `SimEnv.reset` takes it; qpos and qvel after the last action."""
CHUNK = 1000
"""Files in a folder, as LeRobot counts them."""
LONGEST = 600
"""Seconds of a film, after which another file is begun: LeRobot looks for a picture within 0.1 ms, in float32."""
QUANTILES = (1, 10, 50, 90, 99)
Stats = dict[str, Any]


def parquet() -> Any:
    """pyarrow's module for Parquet; UserError where there is none."""
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UserError("LeRobot datasets need pyarrow and pandas: pip install 'rrl[lerobot]'") from error
    return pq


def facts(folder: Path) -> Mapping[str, Any]:
    """What `rrl demos export` says of the set that a dataset was: its `Demos.facts`, and `origin`. Empty for other
    people's datasets, and for whatever else stands there."""
    return read_json(folder / OURS)


@dataclass(frozen=True)
class Plan:
    """What is known of a dataset before its first episode."""

    lengths: Sequence[int]
    """Steps of each episode."""
    fps: int
    """Steps per second."""
    task: str
    """In words, for policies that read it."""
    robot: str
    cameras: Sequence[str]
    """Their pictures are `observation.images.<camera>`."""
    side: int
    """Of the pictures, in pixels; even."""
    about: Mapping[str, Any]
    """Whatever else is known, for `meta/rrl.json`."""


@contextmanager
def writing_dataset(folder: Path, plan: Plan) -> Iterator[Writer]:
    """What takes the episodes of a dataset, which is there, whole, when the block ends."""
    parquet()
    with making(folder) as part:
        writer = Writer(part, plan)
        try:
            yield writer
            writer.finish()
        finally:
            writer.close()


class Writer:
    """Takes episode after episode: all of its pictures, then its numbers."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder, self.plan = folder, plan
        self.starts = np.cumsum([0, *plan.lengths])
        """The first step of each episode, and the end."""
        self.file = np.unique(self.starts[:-1] // (LONGEST * plan.fps), return_inverse=True)[1]
        """Which film each episode is in."""
        self.films: dict[str, Film] = {}
        """Under way, one for each camera."""
        self.columns: list[dict[str, NDArray[Any]]] = []
        self.rows: list[dict[str, Any]] = []
        self.counts: list[dict[str, NDArray[np.int64]]] = []
        """Per episode and camera, how often each channel had each value: [3, 256]."""

    def picture(self, frames: NDArray[np.uint8]) -> None:
        """What the cameras see before the next action: [H, W, 3 * cameras]."""
        i = len(self.rows)
        if not self.films:
            for camera in self.plan.cameras:
                path = self.folder / f"videos/{_key(camera)}/{_place(int(self.file[i]))}.mp4"
                self.films[camera] = Film(path, self.plan.fps, self.plan.side)
        if len(self.counts) == i:
            self.counts.append({camera: np.zeros((3, 256), np.int64) for camera in self.plan.cameras})
        for c, (camera, film) in enumerate(self.films.items()):
            shown = np.ascontiguousarray(frames[:, :, 3 * c : 3 * c + 3])
            film.add(shown)
            channels = np.moveaxis(shown, 2, 0)
            self.counts[i][camera] += [np.bincount(channel.ravel(), minlength=256) for channel in channels]

    def end_episode(self, columns: Mapping[str, NDArray[Any]], row: Mapping[str, Any]) -> None:
        """The numbers of the episode's L steps, [L, n] each, and what its row of `meta/episodes` has beyond LeRobot's
        own columns."""
        i = len(self.rows)
        frame = np.arange(self.plan.lengths[i])[:, None]
        known = {
            **{name: values for name, values in columns.items() if values.shape[1]},
            "timestamp": (frame / self.plan.fps).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full_like(frame, i),
            "index": self.starts[i] + frame,
            "task_index": np.zeros_like(frame),
        }
        self.columns.append(known)
        self.rows.append({**self._place(i), **row, **_flat("stats", self._stats(slice(i, i + 1)))})
        if i + 1 < len(self.file) and self.file[i + 1] != self.file[i]:
            self._end_films()

    def _place(self, i: int) -> dict[str, Any]:
        """Where an episode is found, in LeRobot's columns."""
        first, end = self.starts[i : i + 2].tolist()
        begun = int(self.starts[np.argmax(self.file == self.file[i])])  # its film
        chunk, file = divmod(int(self.file[i]), CHUNK)
        times = {"from_timestamp": (first - begun) / self.plan.fps, "to_timestamp": (end - begun) / self.plan.fps}
        film = {"chunk_index": chunk, "file_index": file, **times}
        only = {"chunk_index": 0, "file_index": 0}
        return {
            "episode_index": i,
            "tasks": [self.plan.task],
            "length": end - first,
            "dataset_from_index": first,
            "dataset_to_index": end,
            **_flat("data", only),
            **_flat(EPISODES, only),
            **_flat("videos", {_key(camera): film for camera in self.plan.cameras}),
        }

    def finish(self) -> None:
        """Write everything but the films, which end here."""
        import pandas
        import pyarrow as pa

        pq = parquet()
        self._end_films()
        for folder in ("data", EPISODES):
            (self.folder / folder / _place(0)).parent.mkdir(parents=True)
        data = {name: np.concatenate([part[name] for part in self.columns]) for name in self.columns[0]}
        table = {
            name: pa.array(v[:, 0]) if v.shape[1] == 1 else pa.FixedSizeListArray.from_arrays(v.ravel(), v.shape[1])
            for name, v in data.items()
        }
        pq.write_table(pa.table(table), self.folder / "data" / f"{_place(0)}.parquet")
        pq.write_table(pa.Table.from_pylist(self.rows), self.folder / EPISODES / f"{_place(0)}.parquet")
        pandas.DataFrame({"task_index": [0]}, index=[self.plan.task]).to_parquet(self.folder / "meta/tasks.parquet")
        write_json(self.folder / "meta/stats.json", self._stats(slice(None)))
        write_json(self.folder / INFO, self._info(data))
        write_json(self.folder / OURS, self.plan.about)

    def close(self) -> None:
        """Let go of films that are not whole."""
        for film in self.films.values():
            film.container.close()

    def _end_films(self) -> None:
        for film in self.films.values():
            film.end()
        self.films = {}

    def _stats(self, chosen: slice) -> dict[str, Stats]:
        """Of the chosen episodes, per feature."""
        parts = self.columns[chosen]
        stats = {name: _of_numbers(np.concatenate([part[name] for part in parts])) for name in parts[0]}
        steps = sum(self.plan.lengths[chosen])
        for camera in self.plan.cameras:
            stats[_key(camera)] = _of_pictures(np.sum([each[camera] for each in self.counts[chosen]], axis=0), steps)
        return stats

    def _info(self, data: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        plan, side = self.plan, self.plan.side
        film = {"height": side, "width": side, "codec": "h264", "pix_fmt": "yuv420p", "is_depth_map": False}
        film |= {"fps": plan.fps, "channels": 3}
        pictures = {
            "dtype": "video",
            "shape": [side, side, 3],
            "names": ["height", "width", "channels"],
            "info": {**{f"video.{k}": v for k, v in film.items()}, "has_audio": False},
        }
        numbers = {name: {"dtype": v.dtype.name, "shape": [v.shape[1]], "names": None} for name, v in data.items()}
        place = "chunk-{chunk_index:03d}/file-{file_index:03d}"
        return {
            "codebase_version": VERSION,
            "robot_type": plan.robot,
            "total_episodes": len(plan.lengths),
            "total_frames": int(self.starts[-1]),
            "total_tasks": 1,
            "chunks_size": CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": plan.fps,
            "splits": {"train": f"0:{len(plan.lengths)}"},
            "data_path": f"data/{place}.parquet",
            "video_path": f"videos/{{video_key}}/{place}.mp4" if plan.cameras else None,
            "features": {**numbers, **{_key(camera): pictures for camera in plan.cameras}},
        }


class Film:
    """An .mp4 (H.264) under way. A key frame every other picture and none that refer to later ones: whoever trains
    looks pictures up in any order."""

    def __init__(self, path: Path, fps: int, side: int) -> None:
        import av

        path.parent.mkdir(parents=True, exist_ok=True)
        self.container = av.open(str(path), "w")
        self.stream = self.container.add_stream("libx264", rate=fps, options={"crf": "18", "g": "2", "bf": "0"})
        self.stream.width = self.stream.height = side
        self.stream.pix_fmt = "yuv420p"

    def add(self, picture: NDArray[np.uint8]) -> None:
        """The next picture [H, W, 3]."""
        import av

        self.container.mux(self.stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))

    def end(self) -> None:
        """Write what is still in the encoder."""
        self.container.mux(self.stream.encode(None))
        self.container.close()


def _flat(name: str, value: Any) -> dict[str, Any]:
    """Nested mappings as one, with names such as `stats/action/min`."""
    if not isinstance(value, Mapping):
        return {name: value}
    return {key: leaf for part, inner in value.items() for key, leaf in _flat(f"{name}/{part}", inner).items()}


def _key(camera: str) -> str:
    return f"observation.images.{camera}"


def _place(file: int) -> str:
    return "chunk-{:03d}/file-{:03d}".format(*divmod(file, CHUNK))


def _of_numbers(values: NDArray[Any]) -> Stats:
    """Over the rows of [T, n]: n of each statistic, and T."""
    rows = values.astype(np.float64)
    stats = {name: getattr(rows, name)(axis=0).tolist() for name in ("min", "max", "mean", "std")}
    quantiles = np.quantile(rows, np.array(QUANTILES) / 100, axis=0).tolist()
    return {**stats, "count": [len(rows)], **{f"q{q:02d}": v for q, v in zip(QUANTILES, quantiles, strict=True)}}


def _of_pictures(counts: NDArray[np.int64], pictures: int) -> Stats:
    """[3][1][1] of each statistic, of values in [0, 1], from how often each channel [3, 256] had each value."""
    level, share = np.arange(256) / 255, counts / counts.sum(axis=1, keepdims=True)
    mean, below = share @ level, share.cumsum(axis=1)
    stats = {
        "min": level[(counts > 0).argmax(axis=1)],
        "max": level[255 - (counts > 0)[:, ::-1].argmax(axis=1)],
        "mean": mean,
        "std": np.sqrt(np.maximum(share @ level**2 - mean**2, 0.0)),
        **{f"q{q:02d}": level[(below >= q / 100).argmax(axis=1)] for q in QUANTILES},
    }
    return {**{name: value.reshape(3, 1, 1).tolist() for name, value in stats.items()}, "count": [pictures]}
