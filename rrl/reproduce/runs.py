"""The runs that a figure is made of: which of them can be had here, what stands in, and their training in a sweep."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from rrl.config import ginfile
from rrl.config.grammar import ConfigError
from rrl.machine.console import duration
from rrl.pretrain.command import pretrain
from rrl.registry import UserError
from rrl.reproduce.figures import Wanted
from rrl.sweeps.backends import Local
from rrl.sweeps.engine import Engine
from rrl.sweeps.jobs import Job
from rrl.sweeps.plan import plan, request
from rrl.sweeps.state import SweepFolder
from rrl.sweeps.table import Table

ANOTHER = "This is ANOTHER method than the published one."


@dataclass
class Planned:
    """The runs of a figure's curves."""

    jobs: list[Job] = field(default_factory=list)
    curves: dict[str, Wanted] = field(default_factory=dict)
    """File that is run -> the curve."""
    notes: list[str] = field(default_factory=list)
    """What stands in for what, and what is left out."""
    untrained: list[Wanted] = field(default_factory=list)
    """Curves whose encoder is to be pretrained here first."""

    def published(self, job: Job) -> bool:
        """Are there published numbers of its curve?"""
        return self.curves[job.source].published


def planned(
    wanted: Sequence[Wanted],
    seeds: Sequence[int],
    overrides: Sequence[str],
    offline: Sequence[str] = (),
    elsewhere: Collection[str] = (),
) -> Planned:
    """The runs of these curves, each of the files with those overrides that fit it; `offline`, settings, for those that
    have no substitute of their own. UserError for an override that fits no file (and isn't one of those that fit
    `elsewhere`), or if nothing can be run."""
    found, lacking = Planned(), {}
    used = [elsewhere, *(_used(*each.pretraining, overrides=overrides) for each in wanted if each.pretraining)]
    for each in wanted:
        try:
            used.append(_used_by_run(each.file, overrides))
            found.curves[each.file] = each
        except ConfigError as error:
            if not (reason := _lacks(each.file)):
                raise error
            if each.pretraining:
                found.untrained.append(each)
            else:
                lacking[each] = reason
    instead = {each: each.substitute or each.file for each in wanted if each.substitute or offline}
    used += [_used_by_run(file, overrides, offline) for each, file in instead.items() if each not in lacking]
    ginfile.must_fit(overrides, used, ", ".join(each.file for each in wanted))
    jobs, missing = _plan(list(found.curves), seeds, overrides)
    lacking |= {found.curves.pop(file): reason for file, reason in missing.items()}
    others = {each: instead[each] for each in lacking if each in instead and "weights" in lacking[each]}
    more, stopped = _plan(list(others.values()), seeds, overrides, offline)
    for each, reason in lacking.items():
        other = others.get(each, "")
        if other and other not in stopped:
            found.curves[other] = each
            what = other if other != each.file else f"{other} with {', '.join(offline)}"
            found.notes += [f"{each.file} can't run here: {reason.splitlines()[0]}", f"instead: {what}. {ANOTHER}"]
        else:
            found.notes.append(f"LEFT OUT: {each.file} can't run here: {stopped.get(other, reason)}")
    found.jobs = list({job.fingerprint: job for job in (*jobs, *more)}.values())
    if not found.jobs and not found.untrained:
        raise UserError("\n".join(found.notes))
    return found


def _used_by_run(file: str, overrides: Sequence[str], settings: Sequence[str] = ()) -> list[str]:
    return ginfile.fitting(lambda some: ginfile.load(file, some), overrides, settings)[1]


def _used(file: str, *settings: str, overrides: Sequence[str]) -> list[str]:
    """Of a pretraining."""
    return ginfile.fitting(lambda some: ginfile.load(file, some, "Pretraining"), overrides, settings)[1]


def _lacks(file: str) -> str:
    """Why a shipped file can't be read here as it is, such as for weights that must be got; empty: it can."""
    try:
        ginfile.load(file)
    except ConfigError as error:
        return str(error)
    return ""


def _plan(
    files: Sequence[str], seeds: Sequence[int], overrides: Sequence[str], settings: Sequence[str] = ()
) -> tuple[list[Job], dict[str, str]]:
    """(jobs, file -> what it lacks here), with those of the overrides that fit one of the files."""
    if not files:
        return [], {}
    fit = {text for file in files for text in _used_by_run(file, overrides, settings)}
    together = ginfile.laid_over(settings, [text for text in overrides if text in fit])
    made = plan("", request(files, seeds=seeds, overrides=together)[1])
    missing = {job.source: reason for reason, jobs in made.missing.items() for job in jobs}
    return [job for job in made.jobs if job.source not in missing], missing


def train(
    title: str, plans: Callable[[], Planned], overrides: Sequence[str], budget: float | None, table: Table
) -> tuple[SweepFolder, Planned, int]:
    """Do the runs that are planned, one after another, each for its part of the budget (seconds; None: as long as they
    take), in a sweep of this title that the next call goes on with: (sweep, what was planned, exit code)."""
    found, began, code = plans(), time.monotonic(), 0
    if found.untrained:
        share = None if budget is None else budget / (len(found.jobs) + 2 * len(found.untrained))
        for each in found.untrained:
            file, *settings = each.pretraining
            table.line(f"first the encoder of {each.file}: {file}")
            statements = ginfile.laid_over(settings, _used(file, *settings, overrides=overrides))
            code = pretrain([file], statements, None, share) or code
        found = plans()
        left = [f"LEFT OUT: {each.file}: its encoder isn't trained yet" for each in found.untrained]
        found.notes += left
    for note in found.notes:
        table.line(note)
    with SweepFolder.open(title) as folder:
        folder.record(found.jobs)
        if not found.jobs or code:
            return folder, found, code
        table.line(f"{len(found.jobs)} runs: {', '.join(job.name for job in found.jobs)}")
        share = None if budget is None else max(0.0, budget - (time.monotonic() - began)) / len(found.jobs)
        if share is not None:
            table.line(f"{duration(share)} for each; what comes before training (demonstrations, ...) is never cut")
        engine = Engine(folder, found.jobs, Local(1), table, share)
        code = engine.run()
        engine.tell_failures()
    return folder, found, code
