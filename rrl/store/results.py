"""Runs as their folders tell them: what reports, sweeps and `rrl reproduce` read. MLflow is not asked."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rrl.config import ginfile
from rrl.registry import Config, UserError, build
from rrl.score import RETURN, Score
from rrl.store import files
from rrl.store.tracking import Row

Status = Literal["finished", "stopped", "failed", "running"]
ROOT = Path("runs")
STATUS, TAGS, PARAMS, LOCK = "status.json", "tags.json", "params.json", "lock"


@dataclass(frozen=True)
class Result:
    """One run: settings, facts, numbers and how it ended."""

    folder: Path
    run_id: str
    name: str
    """Such as `adroit_door_state-seed0`."""
    params: Mapping[str, str]
    """Every setting, flat, as MLflow shows them: `agent.step_size`, `encoder`, `seed`, ..."""
    labels: Mapping[str, str]
    """What its parts are called: `env` (the task, such as `door`), `encoder`, `agent`."""
    score: Score
    """What its task is judged by."""
    pictures: bool
    """Does its policy see pictures?"""
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
        told = _told(folder)
        path = folder / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # a last line without its end is being written, or was cut
        rows = _current([Row(**json.loads(line)) for line in whole.splitlines()])
        tags = files.read_json(folder / TAGS)
        run_id, started = facts["run_id"], facts["started"]
        name = facts.get("name") or f"{Path(facts['source']).stem}-seed{told.params.get('seed', 0)}"
    except KeyError as error:
        raise UserError(f"{folder / 'run.json'} is damaged: it lacks {error}") from error
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{folder} holds no run that can be read: {error}") from error
    status, reason = read_status(folder)
    return Result(
        folder=folder,
        run_id=run_id,
        name=name,
        params=told.params,
        labels=told.labels,
        score=told.score,
        pictures=told.pictures,
        tags=tags,
        rows=rows,
        status=status,
        reason=reason,
        sweep=facts.get("sweep"),
        job=facts.get("job"),
        started=started,
    )


@dataclass(frozen=True)
class Told:
    """What a run's configuration says of it, as today's code or that of its own time understood it."""

    params: Mapping[str, str]
    labels: Mapping[str, str]
    score: Score
    pictures: bool


def told(config: Config) -> Told:
    """Of a configuration as it is today."""
    run: Any = config
    env = build(run.env)
    labels = {name: getattr(run, name).label() for name in ("env", "encoder", "agent")}
    return Told(ginfile.flatten(config), labels, env.score, run.encoder.frames() is not None)


def write_config(folder: Path, config: Config) -> None:
    """Write a run's `config.gin`, and what it says beside it: reports must be able to read old runs when settings
    have gone from the schema, or files that they name from the machine."""
    files.write_text(folder / "config.gin", ginfile.dumps(config))
    files.write_json(folder / PARAMS, {"format": 1, **asdict(told(config))})


def _told(folder: Path) -> Told:
    values = files.read_json(folder / PARAMS)
    if values:
        return Told(values["params"], values["labels"], Score(**values["score"]), values["pictures"])
    # A run of a version that left no such file: as today's schema reads it, or else as its text says.
    path = folder / "config.gin"
    try:
        return told(ginfile.load(path))
    except UserError:
        params = ginfile.flatten_text(path.read_text(), str(path))
    known = files.read_json(folder / TAGS)
    labels = {"env": known.get("env", params.get("env", "?"))}
    labels |= {name: known.get(name, params.get(name, "?")) for name in ("encoder", "agent")}
    return Told(params, labels, _score(folder), known.get("renderer") != "none")


def _score(folder: Path) -> Score:
    """By what it logged."""
    path = folder / "metrics.jsonl"
    success = path.exists() and "/success" in path.read_text()
    return Score("success", counted=True) if success else RETURN


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
    return [folder for folder in folders if files.read_json(folder / "run.json").get("sweep") == sweep]


def write_status(folder: Path, status: str, reason: str = "") -> None:
    """Say how a run goes: RUNNING, FINISHED, STOPPED or FAILED."""
    files.write_json(folder / STATUS, {"status": status, "reason": reason})


def read_status(folder: Path) -> tuple[Status, str]:
    """(status, reason) of the run in a folder; one that says RUNNING without a process was killed."""
    if busy(folder):
        return "running", ""
    said = files.read_json(folder / STATUS)
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
    return files.busy(folder / LOCK)
