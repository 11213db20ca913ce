"""`rrl reproduce fig4 --task door --budget 2h`: runs or goes on with what a figure needs, draws it, and says how it
compares with published numbers, if there are any."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rrl.bench import report as bench
from rrl.commands import looking, policies
from rrl.commands.typed import is_gin
from rrl.config import ginfile
from rrl.config.words import closest, either
from rrl.machine import signals
from rrl.machine.console import Display
from rrl.machine.paths import charts
from rrl.pretrain.command import pretrain
from rrl.registry import UserError
from rrl.report.groups import collect
from rrl.report.write import check, write
from rrl.reproduce import chart, published
from rrl.reproduce.figures import (
    FIGURES,
    SEEDS,
    Compute,
    Evaluation,
    Figure,
    Look,
    Reconstruction,
    Sheet,
    Training,
    Wanted,
)
from rrl.reproduce.published import Curves
from rrl.reproduce.runs import ANOTHER, Planned, planned, train
from rrl.reproduce.verdict import judge, judge_scores
from rrl.run.policies import config_of, shipped
from rrl.store import results
from rrl.store.results import Result
from rrl.sweeps.table import Table

NOTHING = "nothing to judge by: no numbers of this figure are published"
FOLDER = "figures"
"""Of pictures, in `runs/`."""


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    name: str
    task: str
    budget: float | None = None
    """Seconds; None: the paper's."""
    seeds: Sequence[int] = ()
    oracles: bool = False
    runs: Sequence[str] = ()
    """Runs or policies to take instead of training."""
    repeats: int | None = None
    """Turns of a measurement; None: as many as the figure has."""
    overrides: Sequence[str] = ()
    out: Path | None = None
    table: Table = field(default_factory=Table)

    @property
    def title(self) -> str:
        """`fig4 door`"""
        return f"{self.name} {self.task}".strip()

    @property
    def chosen_seeds(self) -> Sequence[int]:
        """The authors' where nothing else was asked for; within a budget one."""
        return self.seeds or (SEEDS if self.budget is None else SEEDS[:1])

    def picture(self, *decides: object) -> Path:
        """Where the figure goes; by default a name of its own for all that decides it. UserError as `charts`."""
        if self.out is not None:
            charts(self.out)
        key = json.dumps([self.title, self.overrides, version("rrl"), decides], default=str)
        stem = f"{self.title.replace(' ', '_')}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
        return self.out or results.ROOT / FOLDER / f"{stem}.png"


def reproduce(
    figure: str,
    task: str | None,
    *,
    budget: float | None,
    seeds: Sequence[int] = (),
    oracles: bool = False,
    runs: Sequence[str] = (),
    repeats: int | None = None,
    overrides: Sequence[str] = (),
    out: Path | None = None,
) -> int:
    """Make a figure of the paper, of one of its tasks or of all: run until `budget` seconds are over (None: the
    paper's), or take the given `runs`, or measure in `repeats` turns; say how it compares. Returns the exit code:
    whether it could be done, not what came out."""
    known = _known(figure)
    tasks = _tasks(figure, known, task)
    given = {
        "budget": budget is not None,
        "seeds": seeds,
        "oracles": oracles,
        "run": runs,
        "repeats": repeats,
        "out": out is not None,
    }
    for option in (name for name, value in given.items() if value and name not in known.takes):
        takes = ", ".join(f"--{name}" for name in given if name in known.takes)
        quickest = "; --repeats 1 is the quickest" if "repeats" in known.takes else ""
        raise UserError(
            f"--{option} means nothing for {figure} ({known.title}): leave it away. It takes {takes}{quickest}"
        )
    beside = given | {"set": overrides} if runs else {}
    for option in (name for name, value in beside.items() if value and name in known.trains):
        raise UserError(f"--{option} means nothing beside --run, which takes what is there already: leave it away")
    for option in (name for name in ("run", "out") if given[name] and len(tasks) > 1):
        raise UserError(f"--{option} goes with one task: say which with --task {' or '.join(tasks)}")
    asked = Request(figure, "", budget, seeds, oracles, runs, repeats, overrides, out)
    code = 0
    for each in tasks:
        part = replace(asked, task=each, budget=None if budget is None else budget / len(tasks))
        part.table.line(f"{part.title}: {known.title}")
        code = MAKE[type(known)](known, part) or code
        if code > 128:  # a signal: no further tasks
            break
    if budget is not None:
        asked.table.line("the same command goes on where this stopped")
    return code


def _known(name: str) -> Figure:
    if name not in FIGURES:
        parts = [figure for figure in FIGURES if figure.startswith(f"{name}_")]
        close = parts or closest(name, FIGURES)
        hint = f"did you mean {either(close)}? " if close else ""
        raise UserError(
            f"rrl reproduces no {name}\n  {hint}(one of {', '.join(FIGURES)}; `rrl reproduce` tells what they are)"
        )
    return FIGURES[name]


def _tasks(name: str, figure: Figure, task: str | None) -> Sequence[str]:
    if task is not None and not figure.tasks:
        raise UserError(f"{name} has no tasks to choose from: leave --task away")
    if task is not None and task not in figure.tasks:
        raise UserError(f"{name} has the tasks {', '.join(figure.tasks)}; got {task}")
    return [task] if task is not None else figure.tasks or [""]


# Learning curves


def _curves(figure: Training, asked: Request) -> int:
    curves = published.load(asked.name, asked.task)
    for each in curves:
        asked.table.line(f"{each.label}: {each.source}.")
    if asked.out is not None:
        check(asked.out)  # now, not after hours
    wanted = [each.of(asked.task) for each in figure.wanted if asked.oracles or not each.extra]
    code, out = 0, asked.out
    if asked.runs:
        names, ours = list(asked.runs), results.find(asked.runs)
        if not curves:  # published ones say themselves what can't be compared with them
            _must_be_of_task(figure, asked, {run.run_id: run.labels["env"] for run in ours})
        judged = _one_method(ours) if curves else ours
        out = out or Path(f"{asked.name}_{asked.task}.html")
    else:

        def plans() -> Planned:
            return planned(wanted, asked.chosen_seeds, asked.overrides, figure.offline)

        folder, found, code = train(f"reproduce {asked.title}", plans, asked.overrides, asked.budget, asked.table)
        done = folder.runs()
        begun = [(job, results.read(done[job.fingerprint])) for job in found.jobs if job.fingerprint in done]
        names, ours = [folder.run_id], [run for _, run in begun]
        judged = [run for job, run in begun if found.published(job)]
        out = out or folder.folder / "report.html"
    lines = _verdict(judged, curves, wanted)
    for line in lines:
        asked.table.line(line)
    if ours:
        write(names, out, asked.table.line, published=[each.drawn() for each in curves], verdict="\n".join(lines))
    return code


def _one_method(runs: list[Result]) -> list[Result]:
    """The runs, of each seed one; UserError if they differ in more than their seeds."""
    groups = collect(runs).groups
    if len(groups) != 1:
        raise UserError(
            f"--run takes runs that differ in seed alone; these are {len(groups)} methods: "
            f"{', '.join(group.label for group in groups)}"
        )
    return list(groups[0].runs)


def _verdict(runs: Sequence[Result], curves: Sequence[Curves], wanted: Sequence[Wanted]) -> list[str]:
    if not any(each.published for each in wanted):
        return [NOTHING]
    if not curves:
        shipped_runs = [ginfile.flatten(ginfile.load(each.file)) for each in wanted if each.published]
        return judge_scores(runs, shipped_runs) or [
            "NO VERDICT: none of our runs is of a method with published numbers"
        ]
    lines: list[str] = []
    for each in curves:
        verdict = judge(runs, each) if runs else None
        lines += verdict.lines() if verdict else [_too_early(runs, each)]
    return lines


def _too_early(runs: Sequence[Result], curves: Curves) -> str:
    first, _ = curves.span
    least = min(runs, key=lambda run: run.steps, default=None)
    ours = f"our run {least.name} has reached {least.steps:,}" if least else "none of our runs has begun"
    return f"NO VERDICT: the published curve begins at {first:,} steps, {ours} ({curves.label})"


# Evaluations of finished policies


def _evaluations(figure: Evaluation, asked: Request) -> int:
    out, title = asked.picture(figure.evaluation, *asked.runs), f"{asked.title}: {figure.title}"
    if asked.out is not None:
        chart.check(out, title)  # now, not after hours
    _, own = ginfile.fitting(
        lambda some: ginfile.bound(figure.evaluation, "evaluators", overrides=some), asked.overrides
    )
    code, sources = 0, {source: source for source in asked.runs}
    configs = {source: _configuration(source) for source in sources}  # now, not after the first one's hour
    if sources:
        ginfile.must_fit(asked.overrides, [own], figure.evaluation)
        _must_be_of_task(figure, asked, {source: config.env.label() for source, config in configs.items()})
    else:
        code, sources = _policies(figure, asked, own)
        configs = {name: _configuration(source) for name, source in sources.items()}
    blind = [f"{name} ({config.encoder.label()})" for name, config in configs.items() if not config.encoder.frames()]
    if blind and isinstance(figure, Sheet):
        raise UserError(f"{asked.title} shows a policy's pictures, and {blind[0]} sees none: take one that does")
    found = {}
    for name, source in sources.items():
        method = f"{configs[name].encoder.label()} · {configs[name].agent.label()} ({name})"
        with Display() as display, signals.told(display.line, "the same command goes on"):
            found[method] = policies.evaluate(source, display, other=figure.evaluation, overrides=own)
    if found and not isinstance(figure, Sheet):
        asked.table.console.print(chart.table(found))
        chart.draw(found, title, out)
        asked.table.line(f"figure: {', '.join(map(str, charts(out)))}")
    asked.table.line(NOTHING)
    return code


def _policies(figure: Evaluation, asked: Request, elsewhere: Sequence[str]) -> tuple[int, dict[str, str]]:
    """(exit code, policies to evaluate, by name): of each run that is wanted a shipped one, or those of its training
    here. `elsewhere`: the overrides that fit the evaluators."""
    wanted = [each.of(asked.task) for each in figure.wanted]
    ready = {each: file for each in wanted for file in (each.substitute, each.file) if file in shipped()}
    sources, untrained = {file: file for file in ready.values()}, [each for each in wanted if each not in ready]

    def plans() -> Planned:
        return planned(untrained, asked.chosen_seeds, asked.overrides, elsewhere=elsewhere)

    if not untrained:
        ginfile.must_fit(asked.overrides, [elsewhere], figure.evaluation)
        for option in (name for name, value in {"budget": asked.budget, "seeds": asked.seeds}.items() if value):
            raise UserError(f"--{option} means nothing for {asked.title}: its policies are shipped; leave it away")
    for each, file in ready.items():
        other = f". {ANOTHER}" if file != each.file else ""
        asked.table.line(f"the shipped policy {file} stands in for a training of {each.file}{other}")
    if not untrained:
        return 0, sources
    folder, found, code = train(f"reproduce {asked.title}", plans, asked.overrides, asked.budget, asked.table)
    done = folder.runs()
    for job in found.jobs:
        try:
            if job.fingerprint not in done:
                raise UserError("its run has not begun")
            policies.locate(str(done[job.fingerprint]), best=False)
            sources[job.name] = str(done[job.fingerprint])
        except UserError as error:
            asked.table.line(f"LEFT OUT: {job.name}: {error}")
    return code, sources


def _configuration(source: str) -> Any:
    """Of the run that made a policy."""
    return config_of(policies.locate(source, best=False))


def _must_be_of_task(figure: Training | Evaluation | Look, asked: Request, tasks: Mapping[str, str]) -> None:
    """UserError if a run is of another task than the figure. `tasks`: run -> its environment's label."""
    own = {_env(figure.wanted[0].of(task).file): task for task in figure.tasks}
    (wanted,) = (label for label, task in own.items() if task == asked.task)
    for run, task in ((run, task) for run, task in tasks.items() if task != wanted):
        instead = f"`rrl reproduce {asked.name} --task {own[task]}`" if task in own else f"`{figure.otherwise}`"
        takes = instead.format(run=run, figure=figure)
        raise UserError(
            f"--run {run} is of {task}, {asked.name} is made here of {wanted}: leave it away; {takes} takes it"
        )


def _env(file: str, overrides: Sequence[str] = ()) -> str:
    """Label of the environment that a gin file binds."""
    config, _ = ginfile.fitting(lambda some: ginfile.bound(file, "env", overrides=some), overrides)
    return str(config.label())


# What needs no run


def _look(figure: Look, asked: Request) -> int:
    sources, used = list(asked.runs), list(asked.overrides)
    envs = {each: _env(each, used) if is_gin(each) else _configuration(each).env.label() for each in sources}
    _must_be_of_task(figure, asked, envs)
    if not sources:
        found = planned([each.of(asked.task) for each in figure.wanted], (), asked.overrides)
        sources = [job.source for job in found.jobs]
        for note in found.notes:
            asked.table.line(note)
        _, used = ginfile.fitting(lambda some: [ginfile.load(s, some) for s in sources], asked.overrides)
    out = asked.picture(*sources)
    if asked.out is None and out.exists():
        asked.table.line(f"drawn already: {out}")
    else:
        with Display() as display:
            looking.show(sources, used, out, display, count=8, of="features", side=224)
    asked.table.line(NOTHING)
    return 0


def _reconstruction(figure: Reconstruction, asked: Request) -> int:
    code = pretrain([figure.file.format(task=asked.task)], asked.overrides, None, asked.budget)
    asked.table.line(NOTHING)
    return code


def _compute(figure: Compute, asked: Request) -> int:
    repeats = asked.repeats or figure.repeats
    out = asked.picture(repeats)
    if asked.out is None and out.exists():
        asked.table.line(f"measured already: {out}")
    else:
        bench.compute([], repeats, out.with_suffix(".json"), out, asked.overrides)
    asked.table.line(f"published: {figure.told}; nothing else to judge by")
    return 0


MAKE: dict[type[Figure], Callable[..., int]] = {
    Training: _curves,
    Evaluation: _evaluations,
    Sheet: _evaluations,
    Look: _look,
    Reconstruction: _reconstruction,
    Compute: _compute,
}


def show(say: Callable[[str], None], only: str | None = None) -> None:
    """Say what there is to reproduce, or what `only` one figure is."""
    for name, figure in (FIGURES if only is None else {only: _known(only)}).items():
        say(f"{name}: {figure.title}")
        if figure.tasks:
            say(f"    tasks: {', '.join(figure.tasks)}")
        say(f"    at the paper's scale: {figure.cost}")
        say(f"    published numbers: {published.label(name) or figure.told or 'none'}")
