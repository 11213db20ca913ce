"""Runs on disk: starting one, going on with one, and how a run ends."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rrl.agents.settings.base import Agent
from rrl.config import ginfile
from rrl.machine.console import Display, optional_output
from rrl.machine.paths import writable
from rrl.machine.signals import Stopped, Stopping, told
from rrl.registry import UserError
from rrl.run import facts as run_facts
from rrl.run import fits, loop, plan, saving
from rrl.run.experiment import Experiment
from rrl.run.placement import resolve
from rrl.run.saving import CHECKPOINT
from rrl.run.speed import Fails
from rrl.run.trackers import Trackers
from rrl.store import files
from rrl.store.recorded import opened, recorded
from rrl.store.results import (
    BUDGET_OVER,
    ID,
    LOCK,
    ROOT,
    TAGS,
    TOLD,
    facts_of,
    folder_of,
    project,
    said,
    write_config,
    write_status,
)
from rrl.store.tracking import NOTE, MLflowTracker
from rrl.trackers.base import Run

MACHINE = ("device", "backend", "workers", "threads")
"""Fields of a run that say where it is computed, not what: another machine may need others."""


@dataclass(frozen=True)
class Job:
    """A run's place in a sweep."""

    sweep: str
    """Run id of the sweep: the parent in MLflow."""
    name: str
    """The job's name in the sweep."""
    fingerprint: str
    """Of the configuration that the sweep asked for."""


def start(
    sources: str | Sequence[str],
    overrides: list[str],
    name: str | None = None,
    budget: float | None = None,
    job: Job | None = None,
) -> int:
    """Run a gin file, or several laid over each other; returns the process's exit code."""
    return _begin(sources, overrides, name, budget, job)[1]


def train(config: Experiment.Config, name: str | None = None, budget: float | None = None) -> Path:
    """As `rrl.train`."""
    folder, code = _begin(config, [], name or f"{Path(sys.argv[0]).stem or 'python'}-seed{config.seed}", budget)
    if code:
        raise SystemExit(code)
    return folder


@optional_output()
def _begin(
    sources: str | Sequence[str] | Experiment.Config,
    overrides: list[str],
    name: str | None = None,
    budget: float | None = None,
    job: Job | None = None,
) -> tuple[Path, int]:
    """Begin a run; returns its folder and the process's exit code."""
    display = Display()
    with told(display.line, "no run was begun"):
        experiment = _checked(sources, overrides)
        make_root()
        if job is None:  # a sweep has told its own
            plan.tell(experiment, ROOT, budget, display.line)
    config = experiment.config
    if isinstance(sources, Experiment.Config):
        sources = "config.gin"  # the run's own: nobody wrote one
    together = [sources] if isinstance(sources, str) else sources
    name = name or f"{'+'.join(Path(source).stem for source in together)}-seed{config.seed}"
    place = {"sweep": job.sweep, "job": job.name, "fingerprint": job.fingerprint} if job else {}
    with Stopping() as stopping:
        tracker = MLflowTracker.start(name, place)
        try:
            folder = ROOT / tracker.run_id
            folder.mkdir()
            with locked(folder):
                write_config(folder, config)
                facts: dict[str, Any] = {
                    **tracker.place(project(folder)),
                    "name": name,
                    "source": shlex.join(together),
                    "overrides": overrides,
                }
                facts |= place
                facts |= {"started": datetime.now(UTC).isoformat(timespec="seconds"), "argv": sys.argv}
                facts["versions"] = experiment.versions
                files.write_json(folder / "run.json", facts)  # a folder with a run.json is a run that can be resumed
                return folder, _execute(experiment, folder, tracker, facts, budget, stopping)
        except BaseException:
            tracker.end("FAILED")
            raise


def dry_run(sources: Sequence[str], overrides: list[str], budget: float | None = None) -> int:
    """Say what `start` would do, and what it would cost; make nothing. Returns the process's exit code."""
    display = Display()
    with told(display.line, "nothing was made"):
        experiment = _checked(sources, overrides)
        writable(ROOT)
        try:
            plan.tell(experiment, ROOT, budget, display.line, measure=True)
        except Fails as error:
            display.line(
                f"error: tried for a few steps, this run fails: {error}\n  `rrl run` shows where it comes from"
            )
            return 1
    return 0


def _checked(sources: str | Sequence[str] | Experiment.Config, overrides: list[str]) -> Experiment:
    """The run that gin files describe, of a resolved configuration; UserError where it can't run here."""
    config = sources if isinstance(sources, Experiment.Config) else ginfile.load(sources, overrides)
    assert isinstance(config, Experiment.Config)
    experiment = Experiment(resolve(config))  # whatever is missing (weights, demonstrations) shows now
    fits.check(experiment)
    return experiment


def make_root() -> None:
    """Make the folder that keeps runs; UserError if it can't be written."""
    try:
        ROOT.mkdir(exist_ok=True)
        files.write_text(ROOT / ".gitignore", "*\n")
    except OSError as error:
        raise UserError(f"runs are kept in {ROOT.absolute()}, which can't be written: {error}") from error


@optional_output()
def resume(run: str, budget: float | None = None, iterations: int | None = None, overrides: Sequence[str] = ()) -> int:
    """Go on with a run from its last checkpoint; returns the process's exit code.

    `iterations` lengthens the run, finished or not. UserError where it has more already, learns nothing from
    rollouts, or belongs to a sweep. `overrides`, gin statements, say what another machine decides otherwise: `MACHINE`.
    """
    folder = folder_of(run, sweeps=False)
    with locked(folder):
        try:
            facts = facts_of(folder)
            versions = facts["versions"]
            uri, run_id = recorded(folder)
        except KeyError as error:
            raise UserError(f"{folder / 'run.json'} is damaged: {error}") from error
        began = ginfile.load(folder / "config.gin")
        asked = config = ginfile.load(folder / "config.gin", overrides)
        assert isinstance(began, Experiment.Config) and isinstance(config, Experiment.Config)
        _only_of_the_machine(began, config)
        encoder = config.encoder.today(said(folder, "encoder"))
        renamed = encoder != config.encoder
        config = config.model_copy(update={"encoder": encoder})
        longer = iterations is not None and iterations != config.iterations
        if longer:
            _may_be_lengthened(config, iterations or 0, facts)
            config = config.model_copy(update={"iterations": iterations})
        elsewhere = f"go on without: rrl resume {shlex.quote(run)} --set \"Experiment.device = 'cpu'\""
        config = resolve(config, elsewhere)
        experiment = Experiment(config)
        last = saving.last(folder, experiment.identity)
        if last.finished(config.iterations) and MLflowTracker.ended(uri, run_id):
            write_status(folder, "FINISHED")
            longer = "sweep" not in facts and config.agent.component.needs_rollouts  # type: ignore[attr-defined]
            more = f"; for more: rrl resume {folder.name[:ID]} --iterations N" if longer else ""
            print(f"this run is finished, {config.iterations} iterations: {folder}{more}")
            return 0
        fits.check(experiment)
        changed = [name for name in MACHINE if getattr(asked, name) != getattr(began, name)]
        moved = [
            (name, then, now) for name in changed if (then := getattr(began, name)) != (now := getattr(config, name))
        ]
        with Stopping() as stopping:
            tracker, made = opened(folder, print)
            try:
                if made:
                    tracker.tags(files.read_json(folder / TAGS))
                if longer:
                    write_status(folder, "STOPPED", f"lengthened to {iterations} iterations")
                if moved:
                    run_facts.moved(folder, moved, last.values.get("steps", 0))
                    words = ", ".join(f"{name} {then} -> {now}" for name, then, now in moved)
                    print(f"note: {words}: the result need not equal an uninterrupted run's bit for bit")
                otherwise = [name for name in TOLD if getattr(asked, name) != getattr(began, name)]
                if longer or renamed or moved or otherwise:
                    write_config(folder, config)
                if unsaid := [name for name in experiment.identity if last and name not in last.values["identity"]]:
                    print(f"note: an earlier version wrote the checkpoint, without {', '.join(unsaid)}: not compared")
                for package, here in experiment.versions.items():
                    if versions.get(package, here) != here:
                        print(
                            f"note: this run began with {package} {versions[package]}, here is {here}: "
                            "the result need not equal an uninterrupted run's bit for bit"
                        )
                return _execute(experiment, folder, tracker, facts, budget, stopping, resumed=True)
            except BaseException:
                tracker.end("FAILED")
                raise


def _only_of_the_machine(began: Experiment.Config, config: Experiment.Config) -> None:
    """UserError if more differs than where the run is computed."""
    before, now = ginfile.flatten(began), ginfile.flatten(config)
    free = {*MACHINE, *TOLD}
    changed = [name for name in before | now if before.get(name) != now.get(name)]
    other = [name for name in changed if name.partition(".")[0] not in free]
    if not other:
        return
    if other[0] == "iterations":
        raise UserError(f"a run is lengthened with --iterations {config.iterations}, not with --set")
    owner, _, field = other[0].rpartition(".")
    part, _, place = owner.rpartition(".")
    of = f" of Experiment.{part}[{place}]" if place.isdigit() else ""
    raise UserError(
        f"{before.get(owner, 'Experiment')}.{field}{of} can't change on the way from {before.get(other[0])} to "
        f"{now.get(other[0])}: it decides the numbers that the run computes. With --set a resumed run takes another "
        f"{', '.join(MACHINE[:-1])} or {MACHINE[-1]}, which are the machine's business, or other "
        f"{' and '.join(sorted(TOLD))}; start a new run for the rest"
    )


def _may_be_lengthened(config: Experiment.Config, iterations: int, facts: dict[str, Any]) -> None:
    agent = config.agent.component
    assert issubclass(agent, Agent)
    if iterations < config.iterations:
        raise UserError(
            f"this run has {config.iterations} iterations: --iterations makes a run longer, not shorter; "
            "to stop earlier give a --budget"
        )
    if not agent.needs_rollouts:
        raise UserError(f"{agent.__name__} learns from demonstrations alone: nothing would come of more")
    if "sweep" in facts:
        raise UserError(
            "this run belongs to a sweep, whose runs are as long as it says; for longer ones start it again "
            f'with --set "Experiment.iterations = {iterations}"'
        )


def _execute(
    experiment: Experiment,
    folder: Path,
    mlflow: MLflowTracker,
    facts: dict[str, Any],
    budget: float | None,
    stopping: Stopping,
    *,
    resumed: bool = False,
) -> int:
    """Train; `facts` is what the run's `run.json` says."""
    params = ginfile.flatten(experiment.config, project(folder))
    note = plan.note(experiment, folder.name, facts.get("source", ""), facts.get("overrides", ()))
    run = Run(folder.name, facts.get("name", ""), project(folder), facts.get("sweep"), note, params, resumed)
    tracker = Trackers(mlflow, experiment.config.trackers, run)

    def work(display: Display) -> loop.Ended:
        display.line(f"run {folder.name}: {run_facts.title(experiment)}")
        if not experiment.encoder.trained:
            display.line("WARNING: the encoder is UNTRAINED (weights = None): random features")
        for mismatch in experiment.encoder.mismatches(experiment.env):
            display.line(f"{'WARNING' if mismatch.serious else 'note'}: {mismatch.text}")
        tracker.begin(display.line)
        tracker.params(params)
        if not resumed:  # people can edit it in MLflow's pages
            mlflow.tags({NOTE: note})
        tracker.artifact(folder / "config.gin")
        tracker.text((folder / "config.gin").read_text(), "config.gin.txt")  # the UI previews only .txt
        return loop.train(experiment, folder, tracker, display, budget, stopping)

    def again() -> str:
        point = "after the last checkpoint" if (folder / CHECKPOINT).exists() else "from the start"
        return f"go on {point} with: rrl resume {folder.name[:ID]}"

    return supervised(work, folder, tracker, stopping, again, " (final evaluation and video come at the end)")


def supervised(
    work: Callable[[Display], loop.Ended],
    folder: Path,
    tracker: MLflowTracker | Trackers,
    stopping: Stopping,
    again: Callable[[], str],
    left: str = "",
) -> int:
    """Do the work of a folder, and put down how it ended, whatever ends it; returns the process's exit code. `again`
    says how to go on, `left` what a budget leaves undone."""
    status, reason, code = "FAILED", "", 1
    write_status(folder, "RUNNING")
    with Display() as display:
        try:
            try:
                with stopping.translated():
                    stopping.listen()
                    ended = work(display)
                tracker.tags({"stopped_by": "nothing" if ended == "finished" else "budget"})
                status, code = "FINISHED", 0
                if ended == "budget":
                    reason = BUDGET_OVER
                    display.line(f"the budget is over{left}: {again()}")
            finally:
                stopping.hold()  # no signal may come between the training and its status
        except Stopped as cause:
            stopping.hold()
            status, reason, code = "KILLED", cause.name, cause.code
            display.line(f"stopped; {again()}")
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"[:4000]
            tracker.tags({"failure": reason})
            raise
        finally:
            tracker.end(status)
            # The folder's status is about the training: a budget or a signal leaves something to go on with.
            write_status(folder, "STOPPED" if reason and code != 1 else status, reason)
            display.line(f"files: {folder}")
            display.line(f"MLflow: {tracker.uri} (run {tracker.run_id}); look at it with: rrl ui")
    return code


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep two processes from one run; `results.busy` holds the lock for a moment when it looks."""
    message = f"another process is working on {folder}; wait for it or stop it first"
    with ExitStack() as stack:
        try:
            stack.enter_context(files.locked(folder / LOCK, seconds=1, refusal=message))
        except OSError as error:
            raise UserError(f"{folder} can't be written: {error}") from error
        yield
