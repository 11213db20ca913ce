"""`rrl probe`, from arguments to exit code."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rrl.config import ginfile
from rrl.machine.console import Display, duration, optional_output
from rrl.machine.processes import keep_freed_memory
from rrl.machine.signals import Stopped, Stopping
from rrl.probes import chart, leaderboard
from rrl.probes.entrants import Entrant, entrants
from rrl.probes.folder import ProbeFolder
from rrl.probes.measure import Measuring
from rrl.probes.pictures import simulators
from rrl.probes.settings import Probe
from rrl.registry import UserError, build
from rrl.store import files, results
from rrl.store.pieces import Pieces

TABLE = "leaderboard.csv"
LACKING = 2
"""Exit code where an entrant could not be had or failed: something that was asked for is not in the leaderboard."""


@optional_output()
def probe(
    sources: Sequence[str], overrides: Sequence[str], name: str | None, *, dry_run: bool = False, new: bool = False
) -> int:
    """Check everything, say how long it takes, do what is not done yet, and show the leaderboard; returns the exit
    code: 0, `LACKING`, or a signal's."""
    there = ProbeFolder.of_id(sources[0]) if len(sources) == 1 else None
    if there:
        folder, facts = there
        sources, there = [str(folder / results.CONFIG)], there if name in (None, facts["name"]) else None
        name = name or str(facts["name"])
    ginfile.must_be("Probe", sources)
    config = ginfile.load(sources, overrides, "Probe")
    assert isinstance(config, Probe.Config)
    name = name or "+".join(Path(source).stem for source in sources)
    build(config.demos, env=build(config.env))  # none of the entrants can do without
    found = entrants(config)
    if not any(entrant.fine for entrant in found):
        raise UserError("none of the encoders can be had:\n" + "\n".join(f"{e.label}: {e.reason}" for e in found))
    keep_freed_memory()
    with ExitStack() as stack:
        display = stack.enter_context(Display())
        opened = stack.enter_context(simulators(config.num_envs))
        if dry_run:
            known = None if new else there or ProbeFolder.named(name)
            folder = known[0] if known else Path(stack.enter_context(tempfile.TemporaryDirectory()))
            _prepare(Measuring(config, found, Pieces(folder), opened, display))
            return _told(found, display)
        stopping = stack.enter_context(Stopping())
        kept = stack.enter_context(ProbeFolder.open(name, new, there))
        kept.settings(config)
        display.line(f"probe {kept.tracker.run_id}: {name}")
        work = Measuring(config, found, Pieces(kept.folder), opened, display)
        code, status = 1, "FAILED"
        try:
            with stopping.translated():
                stopping.listen()
                _measure(work, kept)
            stopping.hold()
            _record(work, kept)
            code, status = _told(found, display), "FINISHED"
        except Stopped as cause:
            stopping.hold()
            code, status = cause.code, "KILLED"
            display.line("stopped: the same command goes on where it is")
        finally:
            stopping.hold()
            kept.tracker.end(status)
        display.line(f"files: {kept.folder}")
        display.line(f"MLflow: {kept.tracker.uri} (run {kept.tracker.run_id}); look at it with: rrl ui")
        return code


def _prepare(work: Measuring) -> None:
    """Time every entrant, and say how long the rest takes."""
    left = len(work.left())
    if not left:
        work.display.line("everything is done")
        return
    for entrant in work.entrants:
        if entrant.fine:
            work.display.phase(f"timing {entrant.label}", 0)
            with work.noted(entrant):
                work.cost(entrant)
    spent = work.seconds_left()
    parts = ", ".join(f"{name} {duration(seconds)}" for name, seconds in spent.items())
    fits = "fitting probes" + " and clones" * (work.probe.clones > 0)
    work.display.line(f"{left} pieces to do: about {duration(sum(spent.values()))} ({parts}; {fits} comes on top)")
    work.display.expect(sum(spent.values()), 0.0, [fits])


def _measure(work: Measuring, kept: ProbeFolder) -> None:
    for entrant in work.entrants:
        if not entrant.fine:
            first = entrant.reason.splitlines()[0]  # all of it comes last
            work.display.line(f"{entrant.label} is left out: {first}")
        for note in entrant.notes:
            work.display.line(f"note: {entrant.label}: {note}")
    for text in work.any.demos.mismatches() if work.any.demos else ():
        work.display.line(f"note: {text}")
    _prepare(work)
    if work.material.constant:
        work.display.line(f"never changes in the demonstrations, and is left out: {', '.join(work.material.constant)}")
    for group in _together(work.entrants):
        work.features(group)
        work.shown(group)
    for entrant in filter(_fine, work.entrants):
        with work.noted(entrant):
            work.probes(entrant)
            work.drift(entrant)
    for clone in range(work.probe.clones):
        if work.left():  # else the last one shows all
            _show(work, kept)
        for entrant in filter(_fine, work.entrants):
            with work.noted(entrant):
                work.clone(entrant, clone)
    rows = _show(work, kept)
    work.display.line(_title(work))
    leaderboard.table(rows, work.display.console)
    for text in leaderboard.LEGEND:
        work.display.line(text)


def _fine(entrant: Entrant) -> bool:
    return entrant.fine


def _together(found: Sequence[Entrant]) -> list[list[Entrant]]:
    """Groups of those who see the same."""
    groups: dict[object, list[Entrant]] = {}
    for entrant in filter(_fine, found):
        groups.setdefault((entrant.experiment.frames, entrant.env), []).append(entrant)
    return list(groups.values())


def _show(work: Measuring, kept: ProbeFolder) -> list[leaderboard.Row]:
    """Write the leaderboard of what is there, for people; returns its rows."""
    found = leaderboard.rows(work)
    files.write_text(kept.folder / TABLE, leaderboard.as_csv(found))
    chart.draw(found, _title(work), kept.folder)
    return found


def _title(work: Measuring) -> str:
    probe = work.probe
    clones = f", {probe.clones} clones, {probe.episodes} episodes of each kind of action" * (probe.clones > 0)
    task = f"{work.any.env.name}: encoders compared, {work.material.base.episodes} demonstrations"
    return f"{task}{clones}, {work.any.config.precision}"


def _record(work: Measuring, kept: ProbeFolder) -> None:
    """Hand it to MLflow."""
    for path in (TABLE, *chart.NAMES):
        if (kept.folder / path).exists():
            kept.tracker.artifact(kept.folder / path)
    demos = work.any.demos
    common = dict(work.any.env.facts())
    common |= {f"demos.{name}": value for name, value in demos.facts().items()} if demos else {}
    for row in leaderboard.rows(work):
        if row.entrant.run is not None:
            kept.child(row, common)


def _told(found: Sequence[Entrant], display: Display) -> int:
    """Say last what is missing; returns the exit code."""
    lacking = [entrant for entrant in found if entrant.reason]
    for entrant in lacking:
        display.line(f"NOT COMPARED  {entrant.label}: {entrant.reason}")
    return LACKING if lacking else 0
