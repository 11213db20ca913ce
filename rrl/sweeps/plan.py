"""From gin files, seeds and a grid to the jobs of a sweep; every mistake of every file is told at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from rrl.config import ginfile
from rrl.config.grammar import ConfigError, Place, Problem
from rrl.config.refusals import checked
from rrl.config.words import literal
from rrl.envs.base import EnvFactory
from rrl.machine.paths import expanded
from rrl.registry import Component, Config, Seed, UserError, build, register
from rrl.run.experiment import Experiment
from rrl.sweeps.jobs import Job
from rrl.sweeps.space import Axis, Point, axis, draw, product

SEARCHES = ("grid", "random", "optuna")


@register
class Sweep(Component):
    """Many runs: gin files x grid x seeds. `rrl sweep FILE` runs a gin file that binds it."""

    kind: ClassVar[str] = "sweep"

    class Config(Component.Config):
        """What is run, and what is varied."""

        files: Annotated[tuple[str, ...], Field(min_length=1)]
        """Gin files of runs: paths relative to the sweep's file, or names of shipped ones."""
        seeds: tuple[Seed, ...] = ()
        """Each run is done with each of these `Experiment.seed`s; (): with the one that its file names."""
        grid: tuple[str, ...] = ()
        """Values to combine, each a string in gin syntax: "DAPG.step_size = (0.02, 0.05)". In a search, also
        ranges of numbers: "DAPG.step_size = '0.01 .. 0.1 log'"."""
        set: tuple[str, ...] = ()
        """Overrides of all runs that have such a field, in gin syntax; paths in them and in `grid` are relative to
        the sweep's file."""
        search: Literal["grid", "random", "optuna"] = "grid"
        """`grid`: every combination; `random`: `trials` random ones; `optuna`: `trials` one after another,
        proposed by Optuna's TPE sampler from what the earlier ones reached (needs the extra `sweep`)."""
        trials: Annotated[int, Field(gt=0, le=100_000)] | None = None
        """Combinations to try in a search."""
        metric: str = "summary/last5_success"
        """What a search maximises, as a run last logged it; mean over files and seeds. Environments without a
        success test, such as DMControl, log "summary/last5_return" instead."""

    config: Config


@dataclass
class Plan:
    """The jobs of a sweep, and what its user should know about them."""

    name: str
    sweep: Sweep.Config
    axes: list[Axis]
    jobs: list[Job] = field(default_factory=list)
    """Empty for an Optuna search, which makes its jobs as it goes."""
    samples: list[Job] = field(default_factory=list)
    """Jobs to judge the cost by: all, or those of one combination of an Optuna search."""
    notes: list[str] = field(default_factory=list)
    missing: dict[str, list[Job]] = field(default_factory=dict)
    """What this machine lacks, in words with remedies, and the samples that it keeps from starting."""

    def stopped(self) -> set[str]:
        """Fingerprints of the samples that lack something."""
        return {job.fingerprint for jobs in self.missing.values() for job in jobs}

    def refuse(self) -> None:
        """UserError if something is missing: each cause once, with the files that share it."""
        if self.missing:
            raise UserError("\n".join(f"{text}\n{self._sharing(jobs)}" for text, jobs in self.missing.items()))

    def _sharing(self, jobs: Sequence[Job]) -> str:
        files = ", ".join(dict.fromkeys(job.source for job in jobs))
        return f"without it {len(jobs)} of {len(self.samples)} runs can't start: {files}"


def request(
    arguments: Sequence[str],
    *,
    seeds: Sequence[int] = (),
    grid: Sequence[str] = (),
    overrides: Sequence[str] = (),
    search: str | None = None,
    trials: int | None = None,
    metric: str | None = None,
) -> tuple[str, Sweep.Config]:
    """(name, config) of what the command line asks for: run files, folders of them, or one sweep file, whose
    settings the options replace."""
    files = [file for argument in arguments for file in _files(argument)]
    options: dict[str, Any] = {"seeds": tuple(seeds), "grid": tuple(grid), "set": tuple(overrides)}
    options |= {"search": search, "trials": trials, "metric": metric}
    options = {key: value for key, value in options.items() if value}
    if search not in (None, *SEARCHES):
        raise UserError(f"--search takes {', '.join(SEARCHES)}; got {search}")
    parts = [file for file in files if file.removesuffix(".gin") in ginfile.fragments()]
    if parts:
        raise UserError(
            f"{parts[0]} is a part of a run, and a sweep takes each file as a whole one: write a file that includes "
            "the parts, or start one run with `rrl run`"
        )
    sweeps = [file for file in files if ginfile.binds(file, "Sweep")]
    if sweeps and len(files) > 1:
        raise UserError(f"{sweeps[0]} is a sweep of its own: start it alone, not beside other files")
    for file in files:
        if file not in sweeps:
            ginfile.must_be("Experiment", [file])
    name = "+".join(dict.fromkeys(Path(argument).stem for argument in arguments))[:60]
    if sweeps:
        config = ginfile.load(sweeps[0], root="Sweep")
        assert isinstance(config, Sweep.Config)
        folders = ginfile.folders_of(sweeps[0])
        members = tuple(next((str(b / f) for b in folders if (b / f).is_file()), f) for f in config.files)
        together = ginfile.laid_over([ginfile.placed(text, folders) for text in config.set], overrides)
        settings = {key: getattr(config, key) for key in Sweep.Config.model_fields}
        settings["grid"] = tuple(ginfile.placed(text, folders) for text in config.grid)
        options = {**settings, **options, "files": members, "set": tuple(together)}
    else:
        options["files"] = tuple(files)
    sweep = checked(Sweep.Config, options)
    if sweep.search != "grid" and sweep.trials is None:
        raise UserError(f"--search {sweep.search} needs --trials, the number of combinations to try")
    if sweep.search == "grid" and (trials or metric):
        raise UserError("--trials and --metric go with --search random or --search optuna")
    if sweep.search == "optuna" and not find_spec("optuna"):
        raise UserError("Optuna is not installed: pip install 'rrl[sweep]'")
    if sweep.search != "grid" and not sweep.grid:
        raise UserError(f"--search {sweep.search} needs --grid: what it may vary")
    return name, sweep


def written(arguments: Sequence[str]) -> dict[str, Place]:
    """Of a sweep's file, the lines that name its files, its settings and its grid, by each entry's text; nothing where
    the command line names them."""
    sweeps = [file for argument in arguments for file in _files(argument) if ginfile.binds(file, "Sweep")]
    if len(sweeps) != 1:
        return {}
    config, run = ginfile.resolved(sweeps[0], root="Sweep")
    folders = ginfile.folders_of(sweeps[0])
    places: dict[str, Place] = {}
    for name in ("files", "set", "grid"):
        for origin in run.origins(config, name)[:1]:
            for text in getattr(config, name):
                places[text if name == "files" else ginfile.placed(text, folders)] = origin.bindings[0].place
    return places


def plan(name: str, sweep: Sweep.Config, places: Mapping[str, Place] | None = None) -> Plan:
    """All jobs, and what they lack here; ConfigError with the mistakes of all files and of the grid together, at the
    `places` of a sweep's file that tell them (see `written`)."""
    places = places or {}
    problems: list[Problem] = []
    axes: list[Axis] = []
    for text in sweep.grid:
        try:
            axes.append(axis(text))
        except ConfigError as error:
            problems += [_at(problem, places) for problem in error.problems]
    for index, one in enumerate(axes):
        if first := next((other for other in axes[:index] if other.field == one.field), None):
            message = f"{one.field} is varied twice; first by {first.place}"
            problems.append(_at(Problem.at(one.place, message, "list all its values in one of the two"), places))
    if problems:
        raise ConfigError(problems)
    planned = Plan(name, sweep, axes)
    if sweep.search == "optuna":
        points: list[Point] = [draw(axes, np.random.default_rng(0))]  # to check the files; not run
    elif sweep.search == "random":
        rng = np.random.default_rng(0)
        points = [draw(axes, rng) for _ in range(sweep.trials or 0)]
    else:
        points = list(product(axes))
    builder = Builder(sweep, axes, places)
    jobs = [job for file in sweep.files for job in builder.jobs(file, points)]
    problems = builder.problems()
    if problems:
        raise ConfigError(problems)
    planned.notes = builder.notes()
    if sweep.search == "optuna":
        _check_metric(sweep.metric, jobs)
    planned.missing = _missing_parts(jobs)
    planned.jobs, planned.samples = ([] if sweep.search == "optuna" else jobs), jobs
    return planned


class Builder:
    """Makes jobs of files and points, and remembers what did not fit."""

    def __init__(self, sweep: Sweep.Config, axes: Sequence[Axis], places: Mapping[str, Place] | None = None) -> None:
        self.sweep, self.axes, self._places = sweep, list(axes), places or {}
        self._problems: dict[Problem, None] = {}
        self._fits: dict[str, set[str]] = {text: set() for text in self._texts()}
        """Entries of grid and overrides as the user wrote them, each with the files whose runs use it."""
        self._seen: dict[str, Job] = {}
        self._twins: dict[str, str] = {}
        """Files whose configuration another file has already made, and that file."""
        self._names: set[str] = set()

    def jobs(self, file: str, points: Iterable[Point]) -> list[Job]:
        """The runs of one file, without those that an equal configuration has made already."""
        new = []
        for job in self.every(file, points):
            twin = self._seen.setdefault(job.fingerprint, job)
            if twin is job:
                new.append(job)
            elif twin.source != file:
                self._twins[file] = twin.source
        return new

    def every(self, file: str, points: Iterable[Point]) -> list[Job]:
        """The runs of one file at these points, equal ones too."""
        seeds = self.sweep.seeds or (None,)
        jobs = [self._job(file, point, seed) for point in points for seed in seeds]
        return [job for job in jobs if job is not None]

    def problems(self) -> list[Problem]:
        """All mistakes so far, and the entries that fit no file."""
        hint = "none of their runs uses it; `rrl check FILE` prints what a run uses"
        unfit = [text for text, files in self._fits.items() if not files and not self._problems]
        return [
            *self._problems,
            *(
                _at(Problem(f"{text} fits none of the files", where, 0, text, hint), self._places)
                for text, where in self._texts().items()
                if text in unfit
            ),
        ]

    def notes(self) -> list[str]:
        """What the user should know, in words."""
        notes = [
            f"{text} does not fit {file}: it runs without it"
            for text, files in self._fits.items()
            for file in self.sweep.files
            if file not in files and file not in self._twins
        ]
        return notes + [f"{file} makes the same runs as {other}: done once" for file, other in self._twins.items()]

    def _texts(self) -> dict[str, str]:
        """Entries of grid and overrides, each with where it was written."""
        return {axis.field: axis.place.file for axis in self.axes} | {
            text: f'--set "{text}"' for text in self.sweep.set
        }

    def _job(self, file: str, point: Point, seed: int | None) -> Job | None:
        """One run, without the entries that nothing in it uses; None if it can't be made."""
        # The statement of each entry, by what the user wrote.
        chosen = {axis.field: axis.override(point[axis.field]) for axis in self.axes if axis.field in point}
        chosen |= {text: text for text in self.sweep.set}
        seeds = [] if seed is None else [f"Experiment.seed = {seed}"]
        try:
            config, used = ginfile.fitting(lambda some: ginfile.load(file, some), [*chosen.values(), *seeds])
        except ConfigError as error:
            entries = {chosen[axis.field]: axis.place.text for axis in self.axes if axis.field in chosen}
            self._problems |= dict.fromkeys(_at(problem, self._places, entries) for problem in error.problems)
            return None
        chosen = {text: statement for text, statement in chosen.items() if statement in used}
        for text in chosen:
            self._fits[text].add(file)
        assert isinstance(config, Experiment.Config)
        taken = {name: value for name, value in point.items() if name in chosen}
        return Job(self._name(file, taken, config.seed), file, taken, config)

    def _name(self, file: str, point: Point, seed: int) -> str:
        parts = [Path(file).stem]
        parts += [f"{name.rsplit('.', 1)[-1]}={_short(value)}" for name, value in point.items()]
        stem = re.sub(r"[^\w.=+-]+", "_", "-".join(parts))[:120]
        name, count = f"{stem}-seed{seed}", 1
        while name in self._names:
            count += 1
            name = f"{stem}-{count}-seed{seed}"
        self._names.add(name)
        return name


def _at(problem: Problem, places: Mapping[str, Place], grid: Mapping[str, str] | None = None) -> Problem:
    """The problem where its user wrote what it is about: in the line of a sweep's file, or as an entry of the `grid`,
    of which a run has one value (statement -> entry)."""
    option = re.fullmatch(r'--(?:set|grid) "(.*)"', problem.file, re.DOTALL)
    text = option[1] if option else problem.file
    entry = (grid or {}).get(text, text)
    if problem.line == 0 and (place := places.get(entry)):
        told = replace(problem, message=f"{text!r}: {problem.message}")
        return replace(told, file=place.file, line=place.line, text=place.text)
    return problem if entry == text else replace(problem, file=f'--grid "{entry}"', text=entry)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return literal(value).strip("()'\"@").replace("()", "").replace(", ", "x")


def _check_metric(metric: str, jobs: Sequence[Job]) -> None:
    """UserError if some of the runs will never log what the search maximises."""
    space, _, name = metric.partition("/")
    kind = name.rpartition("_")[0]
    for job in jobs:
        if space == "summary" and kind:  # a kind of mean of the score, which has its name
            logged = job.score.metric("summary", kind)
        elif "success" in name and not job.score.counted:
            logged = f"{space}/{job.score.name}"
        else:  # evaluators call their numbers as they like
            continue
        if logged != metric:
            mixed = any(other.score.name != job.score.name for other in jobs)
            raise UserError(
                f"{job.source} {'counts successes' if job.score.counted else 'has no success test'}, so its runs log "
                f"no {metric} to maximise; set --metric {logged} (in a sweep's file: Sweep.metric = '{logged}')"
                + ("; search the files that are judged alike by themselves" if mixed else "")
            )


def _missing_parts(jobs: Sequence[Job]) -> dict[str, list[Job]]:
    """What is missing, such as weights, each with the jobs that need it. Each part is made once, and then what each
    combination of parts makes: a download that fails may take long."""
    lacks: dict[Any, str] = {}

    def lack(make: Callable[..., Any], config: Config, **context: Any) -> str:
        key = (make, config, *context.values())
        if key not in lacks:
            try:
                make(config, **context)
                lacks[key] = ""
            except UserError as error:
                lacks[key] = str(error)
        return lacks[key]

    missing: dict[str, list[Job]] = {}
    envs: dict[Config, EnvFactory] = {}
    wholes: dict[Any, Experiment.Config] = {}
    for job in jobs:
        config = job.config
        env = envs.setdefault(config.env, build(config.env))
        texts = [lack(build, config.encoder, cameras=len(env.cameras))]
        texts += [lack(build, config.demos, env=env)] if config.demos else []
        if not any(texts):
            whole = config.model_copy(update={"device": "cpu"})
            texts = [lack(Experiment, wholes.setdefault((config.env, config.encoder, config.demos), whole))]
        for text in filter(None, texts):
            missing.setdefault(text, []).append(job)
    return missing


def _files(argument: str) -> list[str]:
    """Run files that an argument of the command line means."""
    path = expanded(argument)
    if path.is_dir():
        files = sorted(str(p) for p in path.glob("*.gin"))
        if not files:
            raise UserError(f"the folder {argument} holds no gin file; name gin files, or a folder of some")
        return files
    bare = argument.strip("/").removeprefix("gin/")
    inside = [name for name in ginfile.shipped() if name.startswith(f"{bare}/")]
    if not path.exists() and inside:
        return inside
    return [argument]
