"""Runs as their folders tell them: what reports, sweeps and `rrl reproduce` read. MLflow is not asked."""

from __future__ import annotations

import difflib
import glob
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import TypeAdapter

from rrl import registry
from rrl.config import ginfile
from rrl.registry import Config, UserError, build
from rrl.score import RETURN, Score
from rrl.store import files
from rrl.store.checkpoint import load_values
from rrl.store.schema import misfit, parsed, text_of
from rrl.store.tracking import Row, row_of

Status = Literal["finished", "stopped", "failed", "running"]
ENDS: tuple[Status, ...] = ("finished", "stopped", "failed")
ROOT = Path("runs")
WHERE = "runs stand in the folder where `rrl run` was typed; `rrl run quickstart` makes one in minutes"
RUN, SWEEP, PRETRAINING, PROBE = "run.json", "sweep.json", "pretraining.json", "probe.json"
"""What makes a folder that of a run, of a sweep, of an encoder's training, or of a comparison of encoders."""
OTHERWISE = {"encoder.other_task": True, "encoder.other_pictures": False}
"""Tags of what is otherwise than in the pictures that the encoder was trained on, and whether it is serious."""
STATUS, TAGS, PARAMS, LOCK, CONFIG = "status.json", "tags.json", "params.json", "lock", "config.gin"
PERCENT, EPISODES = 100.001, 2**31
"""The largest share of episodes, rounding included, and number of them."""
ID = 8
"""Characters of an id that people are shown: any beginning that no other run shares means it."""
BUDGET_OVER = "the budget was over"
"""Why a run stopped that `--budget` ended."""
TOLD = frozenset({"trackers", "system_metrics"})
"""Fields of a run that decide what is told of it, and no number that it reaches."""
PARTS = {"env": "environment", "encoder": "encoder", "agent": "agent"}
"""Those that every run has, and whose names tell runs apart; and their kinds."""


@dataclass(frozen=True)
class Setup:
    """What a run's configuration says of it, in the words of the code that ran it: `params.json` in its folder."""

    params: Mapping[str, str]
    """Every setting, flat, as MLflow shows them: `agent.step_size`, `encoder`, `seed`, ..."""
    labels: Mapping[str, str]
    """What its parts are called: `env` (the task, such as `door`), `encoder`, `agent`."""
    score: Score
    """What its task is judged by."""
    flags: tuple[str, ...]
    """Its task's goal flags; the first one is the score's."""
    pictures: bool
    """Does its policy see pictures?"""
    control: bool
    """Is its policy to see nothing, on purpose?"""
    visual: tuple[str, ...]
    """Settings, by their names in `params`, that decide how pictures look and nothing else."""


_setups = TypeAdapter(Setup)


@dataclass(frozen=True)
class Result(Setup):
    """One run: settings, facts, numbers and how it ended."""

    folder: Path
    run_id: str
    name: str
    """Such as `adroit_door_state-seed0`."""
    tags: Mapping[str, str]
    """What it ran on: protocol, reward, look, demos, git commit, versions, ... (see `rrl.run.facts`)."""
    packages: tuple[str, ...]
    """Distributions whose versions may decide its numbers; tags of their names say which."""
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

    def fact(self, part: str, name: str) -> str:
        """What a part's `facts()` said under this name; empty if nothing."""
        return self.tags.get(f"{part}.{name}", "")

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

    def steps_by(self, updates: int) -> int:
        """Environment steps before so many updates were made; before the first there are none."""
        return next((row.step for row in self.rows if row.metrics.get("iteration", 0) == updates), 0)

    @property
    def seconds(self) -> float:
        """Seconds spent in updates so far: sampling, learning, evaluating; not starting up."""
        return sum(self.series("time/iteration")[1])

    @property
    def clock(self) -> list[float] | None:
        """Seconds spent by the end of each row: in the warm start, in updates, in evaluations between them. Rows add
        up over resumes: pauses, starting up and what a crash cut off are in none. None for a run of a version that did
        not time its updates."""
        seconds, clock = 0.0, []
        for row in self.rows:
            if "iteration" in row.metrics and "time/iteration" not in row.metrics:
                return None
            before = row.metrics.get("time/warm_start", 0.0) + row.metrics.get("time/evaluate", 0.0)
            seconds += row.metrics.get("time/iteration", before)  # which has its evaluation in it
            clock.append(seconds)
        return clock

    @property
    def unseen(self) -> frozenset[str]:
        """Settings that decide nothing here: those about pictures, in a run without any."""
        return frozenset() if self.pictures else frozenset({"precision", "backend", *self.visual})

    @property
    def videos(self) -> list[Path]:
        """Its videos, oldest first."""
        return sorted((self.folder / "videos").glob("*.mp4"))


def read(folder: Path) -> Result:
    """The run in a folder. UserError if there is none or its files are damaged."""
    facts = facts_of(folder)
    try:
        setup = _read_setup(folder)
        rows = _read_rows(folder / "metrics.jsonl")
        _check_counts(rows, setup.score)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} holds no run that can be read: {error}") from error
    status, reason = read_status(folder)
    return Result(
        **vars(setup),
        folder=folder,
        run_id=facts["run_id"],
        name=facts.get("name") or f"{Path(facts.get('source', '')).stem}-seed{setup.params.get('seed', 0)}",
        tags={name: str(value) for name, value in files.read_json(folder / TAGS).items()},
        packages=tuple(facts.get("versions") or ()),
        rows=rows,
        status=status,
        reason=reason,
        sweep=facts.get("sweep"),
        job=facts.get("job"),
        started=facts["started"],
    )


class _Facts(pydantic.BaseModel):
    """What is asked of a run's `run.json`; more stands there for people."""

    model_config = pydantic.ConfigDict(strict=True)

    run_id: str
    started: str
    uri: str = ""
    name: str | None = None
    source: str = ""
    overrides: list[str] = []
    versions: dict[str, str] | None = None
    sweep: str | None = None
    job: str | None = None
    fingerprint: str | None = None


def facts_of(folder: Path) -> dict[str, Any]:
    """What `run.json` says of the run in a folder. UserError if there is none, or it is damaged."""
    try:
        facts: dict[str, Any] = parsed(text_of(folder / RUN))
        why = misfit(_Facts, facts)
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no run: it has no {RUN}") from error
    except (OSError, ValueError) as error:
        why = str(error)
    if why:
        raise UserError(f"{folder} holds no run that can be read: {RUN} is damaged: {why}")
    return facts


def said(folder: Path, part: str) -> dict[str, str]:
    """A part's `facts()` of a run, as its tags keep them."""
    start = f"{part}."
    return {k.removeprefix(start): str(v) for k, v in files.read_json(folder / TAGS).items() if k.startswith(start)}


def project(folder: Path) -> Path:
    """The folder that holds a run's `runs/`, which may be a link: what moves together."""
    there = folder.resolve() if folder.is_symlink() else folder.absolute()
    return Path(os.path.normpath(there)).parent.parent


def setup_of(config: Config, folder: Path) -> Setup:
    """What an experiment's configuration says of the run in a folder."""
    run: Any = config
    env: Any = build(run.env)
    params = ginfile.flatten(config, project(folder))
    return Setup(
        params={name: value for name, value in params.items() if name.partition(".")[0] not in TOLD},
        labels={part: getattr(run, part).label() for part in PARTS},
        score=env.score,
        flags=tuple(env.flags),
        pictures=run.encoder.frames() is not None,
        control=run.encoder.blind_on_purpose,
        visual=tuple(f"env.{name}" for name in sorted(env.visual)),
    )


def write_config(folder: Path, config: Config) -> None:
    """Write a run's `config.gin`, and what it says beside it: reports must be able to read old runs when settings
    have gone from the schema, or files that they name from the machine."""
    files.write_text(folder / CONFIG, ginfile.dumps(config, folder, project(folder)))
    files.write_json(folder / PARAMS, asdict(setup_of(config, folder)))


def _read_setup(folder: Path) -> Setup:
    """As it was written; of a run without that file, or with a damaged one, as `config.gin` says."""
    path = folder / CONFIG
    try:
        setup = _setups.validate_python(files.read_json(folder / PARAMS))
        if setup.params.keys() & setup.labels.keys() >= PARTS.keys():
            return setup
    except ValueError:
        pass
    try:
        return setup_of(ginfile.load(path), folder)
    except UserError:
        return _setup_of_text(text_of(path), folder)


def _setup_of_text(text: str, folder: Path) -> Setup:
    """Of a `config.gin` that today's schema refuses: part by part as far as the code still knows them, and else by
    what the run said in its tags and logged. ValueError if the text is no run's configuration."""
    params = ginfile.flatten_text(text, str(folder / CONFIG))
    if not params.keys() >= set(PARTS):
        raise ValueError("config.gin is damaged")
    parts: dict[str, Any] = {name: _part(name, params[name], text) for name in PARTS}
    tags = files.read_json(folder / TAGS)
    labels = {name: part.label() if part else tags.get(name, params[name]) for name, part in parts.items()}
    env: Any = build(parts["env"]) if parts["env"] else None
    encoder = parts["encoder"]
    score = env.score if env else _logged_score(_read_rows(folder / "metrics.jsonl"))
    return Setup(
        params=params,
        labels=labels,
        score=score,
        flags=tuple(env.flags) if env else (score.name,) * score.counted,
        pictures=encoder.frames() is not None if encoder else tags.get("renderer") != "none",
        control=encoder.blind_on_purpose if encoder else False,
        visual=tuple(f"env.{name}" for name in sorted(env.visual)) if env else (),
    )


def _part(place: str, component: str, text: str) -> Config | None:
    """One part of a run, without the settings that it has no more; None if there is no such component now, or its
    settings are wrong today."""
    try:
        cls = registry.get(component)
        if cls.kind != PARTS[place]:
            return None
        bindings = re.findall(rf"^(?:{place}/)?({component}\.(\w+) = .*)$", text, re.MULTILINE)
        return ginfile.loads(
            "\n".join(line for line, field in bindings if field in cls.Config.model_fields), root=component
        )
    except (KeyError, UserError):
        return None


def _logged_score(rows: Iterable[Row]) -> Score:
    """What rows are of: a share of episodes has an interval. Variants of it have longer names."""
    metrics = dict.fromkeys(name for row in rows for name in row.metrics)
    counted = [name.partition("/")[2] for name in metrics if f"{name}_low" in metrics]
    return Score(min(counted, key=len), counted=True) if counted else RETURN


def _read_rows(path: Path) -> tuple[Row, ...]:
    text = text_of(path) if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]  # a last line without its end is being written, or was cut
    rows = [_row(line, f"{path.name}, line {n}") for n, line in enumerate(whole.splitlines(), 1)]
    newest = max((n for n, row in enumerate(rows) if "iteration" in row.metrics), default=-1)
    for n, row in enumerate(rows[:newest]):
        metrics = {name: value for name, value in row.metrics.items() if not name.startswith("final/")}
        if len(metrics) < len(row.metrics):
            rows[n] = replace(row, metrics=metrics)
    return tuple(rows)


def _check_counts(rows: Sequence[Row], score: Score) -> None:
    """ValueError for a share of episodes that is no percentage, or a number of episodes that is none."""
    shares = re.compile(rf"(train|eval|final)/(\w+_)?{re.escape(score.name)}(_sampled)?")
    names = {name for row in rows for name in row.metrics}
    most: dict[str, float] = {
        name: EPISODES for name in names if name.partition("/")[2] in ("episodes", "episodes_sampled")
    }
    most |= {name: PERCENT for name in names if score.counted and shares.fullmatch(name)}
    for row in rows:
        for name in most.keys() & row.metrics.keys():
            if not 0 <= row.metrics[name] <= most[name]:
                raise ValueError(f"metrics.jsonl is damaged: {name} is {row.metrics[name]:g} at step {row.step}")


def _row(line: str, where: str) -> Row:
    """ValueError, which names the place, for what is no row."""
    try:
        return row_of(line)
    except ValueError as error:
        raise ValueError(f"{where} is damaged: {line[:60]!r}") from error


def find(names: Iterable[str], root: Path | None = None) -> list[Result]:
    """The runs that these names mean (see `folder_of`), of a sweep all its runs; no names: all runs below `runs/`.
    Sorted by when they started.

    UserError for a name that means nothing, or more than one thing.
    """
    names = list(names)
    chosen = folders(names, root)
    runs = [read(folder) for folder in chosen] if names else _readable(chosen)
    return sorted(runs, key=lambda run: (run.started, run.name))


def folders(names: Iterable[str], root: Path | None = None) -> list[Path]:
    """Folders of the runs that these names mean, each once; no names: of all runs below `runs/`."""
    root, names = root or ROOT, list(names)
    if not names:
        return [path.parent for path in root.glob(f"*/{RUN}")]
    chosen: dict[Path, None] = {}
    for name in names:
        folder = folder_of(name, root)
        sweep = folder.resolve()
        chosen |= dict.fromkeys(runs_of(sweep.name, sweep.parent) if (folder / SWEEP).is_file() else [folder])
    return list(chosen)


class NoSuchRun(UserError):
    """A name that means no run."""


def folder_of(name: str, root: Path | None = None, *, sweeps: bool = True) -> Path:
    """The folder of a run, or of a sweep where `sweeps` are asked for, given as a folder, an id or the beginning of
    one. UserError for a name that means nothing, or more than one thing."""
    root, files_ = root or ROOT, (RUN, SWEEP) if sweeps else (RUN,)
    if name and any((Path(name) / file).is_file() for file in files_):
        return Path(name)
    if Path(name).is_dir() and "/" in name.rstrip("/"):
        raise UserError(f"{name} is a folder, but holds no {' and no '.join(files_)}")
    name = name.rstrip("/") or name
    if "/" in name and Path(name).parent.is_dir():  # `../other/runs/3f2a`
        root, name = Path(name).parent, Path(name).name
    known = {path.parent.name: path.parent for file in files_ for path in root.glob(f"*/{file}")}
    matches = sorted(run_id for run_id in known if name and run_id.startswith(name))
    if name in known or len(matches) == 1:
        return known[name if name in known else matches[0]]
    what = "run or sweep" if sweeps else "run"
    if matches:
        raise UserError(f"{name} may be any of {', '.join(matches)}; give more of the id")
    if not sweeps and name and any(root.glob(f"{glob.escape(name)}*/{SWEEP}")):
        raise UserError(f"{name} is a sweep, not a run; `rrl runs {name}` lists its runs")
    if name and any(root.glob(f"{glob.escape(name)}*/{PRETRAINING}")):
        raise UserError(f"{name} is an encoder's training, not a {what}; `rrl pretrain`, as before, goes on with it")
    if name and any(root.glob(f"{glob.escape(name)}*/{PROBE}")):
        raise UserError(f"{name} is a probe, not a {what}; `rrl probe`, as before, goes on with it")
    raise NoSuchRun(f"there is no {what} {name or repr(name)} in {root.resolve()}. {_near(name, known)}")


def _near(name: str, known: Mapping[str, Path]) -> str:
    """What may have been meant: ids that begin alike, runs of this name, or the newest ones."""
    if not known:
        return f"There are none here: {WHERE}"
    by_time = sorted(known, key=lambda run_id: known[run_id].stat().st_mtime)
    called = [run_id for run_id in by_time if files.read_json(known[run_id] / RUN).get("name") == name]
    if called:
        return f"Runs are meant by their ids; of this name there are {_listed(called)}"
    beginnings = {run_id[: len(name)]: run_id for run_id in by_time}
    close = difflib.get_close_matches(name, beginnings, 3, 0.7) if name else []
    near = (
        f"Did you mean {_listed([beginnings[c] for c in close])}?" if close else f"The newest here: {_listed(by_time)}"
    )
    return f"{near} (`rrl runs` lists them)"


def _listed(ids: Sequence[str]) -> str:
    return ", ".join(run_id[:ID] for run_id in ids[-5:])


def _readable(folders: Iterable[Path]) -> Iterator[Result]:
    """Runs of folders that nobody named: a damaged one must not hide the others."""
    for folder in folders:
        try:
            yield read(folder)
        except UserError as error:
            warnings.warn(str(error), stacklevel=3)


def runs_of(sweep: str, root: Path | None = None) -> list[Path]:
    """Folders of the runs of a sweep (its run id), in no order that means anything."""
    folders = [path.parent for path in (root or ROOT).glob(f"*/{RUN}")]
    return [folder for folder in folders if files.read_json(folder / RUN).get("sweep") == sweep]


def write_status(folder: Path, status: str, reason: str = "") -> None:
    """Say how a run goes: RUNNING, FINISHED, STOPPED or FAILED."""
    files.write_json(folder / STATUS, {"status": status, "reason": reason})


def read_status(folder: Path) -> tuple[Status, str]:
    """(status, reason) of the run in a folder; one that says RUNNING without a process was killed."""
    if busy(folder):
        return "running", ""
    written = files.read_json(folder / STATUS)
    if written.get("status") == "RUNNING":
        return "stopped", "killed, or the machine went down"
    for status in ENDS:
        if written.get("status") == status.upper():
            return status, str(written.get("reason", ""))
    # Of a version that kept no states, or damaged.
    return ("finished", "") if _trained(folder) else ("stopped", "")


def _trained(folder: Path) -> bool:
    """Does the checkpoint say that the run is finished? Its header is JSON; no tensors are read."""
    try:
        return load_values(folder / "checkpoint.safetensors").get("finished") is True
    except UserError:
        return False


def busy(folder: Path) -> bool:
    """Is a process working on this run? (It holds the folder's lock.)"""
    return files.busy(folder / LOCK)
