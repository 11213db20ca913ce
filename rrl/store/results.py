"""Runs as their folders tell them: what reports, sweeps and `rrl reproduce` read. MLflow is not asked."""

from __future__ import annotations

import fcntl
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rrl.config import ginfile
from rrl.registry import UserError
from rrl.store.tracking import Row

Status = Literal["finished", "stopped", "failed", "running"]
ROOT = Path("runs")
STATUS, TAGS = "status.json", "tags.json"


@dataclass(frozen=True)
class Result:
    """One run: settings, facts, numbers and how it ended."""

    folder: Path
    run_id: str
    name: str
    """Such as `adroit_door_state-seed0`."""
    params: Mapping[str, str]
    """Every setting, flat, as MLflow shows them: `agent.step_size`, `encoder`, `seed`, ..."""
    tags: Mapping[str, str]
    """What it ran on: protocol, reward, look, demos, git commit, versions, ... (see `Experiment.tags`)."""
    rows: tuple[Row, ...]
    """Its metrics, one row per update; the first one after the warm start, at step 0. Without the final
    evaluations of an end that a lengthened run has gone beyond."""
    status: Status
    """`stopped`: by a budget, a signal or a crash of the machine; `rrl resume` goes on."""
    reason: str
    """Why it failed or stopped, in words; empty for a finished one."""
    sweep: str | None
    """Run id of the sweep that it belongs to, and the name of its job there."""
    job: str | None
    started: str
    """ISO 8601, UTC."""

    def series(self, metric: str) -> tuple[list[int], list[float]]:
        """(environment steps, values) of a metric, in order."""
        points = [(row.step, row.metrics[metric]) for row in self.rows if metric in row.metrics]
        return [step for step, _ in points], [value for _, value in points]

    def last(self, metric: str) -> float | None:
        """The metric's last value; None if it was never measured."""
        values = self.series(metric)[1]
        return values[-1] if values else None

    @property
    def steps(self) -> int:
        """Environment steps of training so far."""
        return self.rows[-1].step if self.rows else 0

    @property
    def seconds(self) -> float:
        """Seconds spent in updates so far: sampling, learning, evaluating; not starting up."""
        return sum(self.series("time/iteration")[1])

    @property
    def videos(self) -> list[Path]:
        """Its videos, oldest first."""
        return sorted((self.folder / "videos").glob("*.mp4"))


def read(folder: Path) -> Result:
    """The run in a folder. UserError if there is none or its files are damaged."""
    try:
        facts = json.loads((folder / "run.json").read_text())
        config = ginfile.load(folder / "config.gin")
        path = folder / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # a last line without its end is being written, or was cut
        rows = _current([Row(**json.loads(line)) for line in whole.splitlines()])
        tags = read_json(folder / TAGS)
        run_id, started = facts["run_id"], facts["started"]
        name = facts.get("name") or f"{Path(facts['source']).stem}-seed{getattr(config, 'seed', 0)}"
    except KeyError as error:
        raise UserError(f"{folder / 'run.json'} is damaged: it lacks {error}") from error
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{folder} holds no run that can be read: {error}") from error
    status, reason = read_status(folder)
    return Result(
        folder=folder,
        run_id=run_id,
        name=name,
        params=ginfile.flatten(config),
        tags=tags,
        rows=rows,
        status=status,
        reason=reason,
        sweep=facts.get("sweep"),
        job=facts.get("job"),
        started=started,
    )


def _current(rows: list[Row]) -> tuple[Row, ...]:
    newest = max((k for k, row in enumerate(rows) if "iteration" in row.metrics), default=-1)
    for k, row in enumerate(rows[:newest]):
        kept = {name: value for name, value in row.metrics.items() if not name.startswith("final/")}
        rows[k] = replace(row, metrics=kept)
    return tuple(rows)


def find(names: Iterable[str], root: Path | None = None) -> list[Result]:
    """The runs that these names mean: run folders, run ids or beginnings of one, sweeps (all their runs);
    no names: all runs below `runs/`. Sorted by when they started.

    UserError for a name that means nothing, or more than one thing.
    """
    root = root or ROOT
    every = {path.parent.name: path.parent for path in root.glob("*/run.json")}
    folders: dict[Path, None] = {}
    names = list(names)
    for name in names:
        sweep = sweep_folder(name, root)
        if sweep is not None:
            inside = sweep.resolve()
            folders |= dict.fromkeys(runs_of(inside.name, inside.parent))
        elif (Path(name) / "run.json").is_file():
            folders[Path(name)] = None
        else:
            meant = [folder for run_id, folder in sorted(every.items()) if run_id.startswith(name)]
            meant += [path.parent for path in root.glob(f"{name}*/sweep.json")] if "/" not in name else []
            if len(meant) != 1:
                what = f"may be any of {', '.join(f.name for f in meant)}" if meant else "is no run or sweep"
                raise UserError(f"{name} {what} in {root.resolve()}; `rrl ui` lists them")
            folders[meant[0]] = None
    found = [read(folder) for folder in folders] if names else list(_readable(every.values()))
    return sorted(found, key=lambda r: (r.started, r.name))


def _readable(folders: Iterable[Path]) -> Iterator[Result]:
    """Runs of folders that nobody named: a damaged one must not hide the others."""
    for folder in folders:
        try:
            yield read(folder)
        except UserError as error:
            warnings.warn(str(error), stacklevel=3)


def sweep_folder(name: str, root: Path | None = None) -> Path | None:
    """The folder of a sweep, given as a folder, its id or the beginning of one; None if it means no sweep, or
    may mean something else as well."""
    if (Path(name) / "sweep.json").is_file():
        return Path(name)
    found = [path.parent for path in (root or ROOT).glob(f"{name}*/*.json")] if name and "/" not in name else []
    meant = {folder for folder in found if (folder / "sweep.json").exists() or (folder / "run.json").exists()}
    return meant.pop() if len(meant) == 1 and (next(iter(meant)) / "sweep.json").exists() else None


def runs_of(sweep: str, root: Path | None = None) -> list[Path]:
    """Folders of the runs of a sweep (its run id), in no order that means anything."""
    folders = [path.parent for path in (root or ROOT).glob("*/run.json")]
    return [folder for folder in folders if read_json(folder / "run.json").get("sweep") == sweep]


def write_status(folder: Path, status: str, reason: str = "") -> None:
    """Say how a run goes: RUNNING, FINISHED, STOPPED or FAILED."""
    part = folder / f"{STATUS}.part"
    part.write_text(json.dumps({"status": status, "reason": reason}) + "\n")
    part.replace(folder / STATUS)


def read_status(folder: Path) -> tuple[Status, str]:
    """(status, reason) of the run in a folder; one that says RUNNING without a process was killed."""
    if busy(folder):
        return "running", ""
    said = read_json(folder / STATUS)
    if not said:  # of a version that kept no states
        return ("finished", "") if _trained(folder) else ("stopped", "")
    if said["status"] == "RUNNING":
        return "stopped", "killed, or the machine went down"
    return said["status"].lower(), said["reason"]


def _trained(folder: Path) -> bool:
    """Does the checkpoint say that the run is finished? Its header is JSON; no tensors are read."""
    try:
        with (folder / "checkpoint.safetensors").open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return bool(json.loads(header["__metadata__"]["values"])["finished"])
    except (OSError, ValueError, KeyError):
        return False


def busy(folder: Path) -> bool:
    """Is a process working on this run? (It holds the folder's lock.)"""
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty if there is no such file or it isn't one."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
