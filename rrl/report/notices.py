"""What a reader must know before comparing: mixed protocols, untrained encoders, missing runs, few seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rrl.report.groups import Report, pictures, seed_of
from rrl.report.numbers import CURVES, ENOUGH, curve
from rrl.store.results import Result

SHOWN = 8  # characters of run ids and checksums


@dataclass(frozen=True)
class Notice:
    """One thing to know."""

    serious: bool
    """Numbers may not be comparable."""
    text: str
    items: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unfinished:
    """A run that failed, stopped, is still running, or was repeated."""

    run: Result
    group: str
    why: str
    again: str
    """The command that goes on with it; empty if there is nothing to do."""


def notices(report: Report) -> list[Notice]:
    """All warnings and notes of a page, serious ones first."""
    found = [*_mixed(report), *_marked(report), *_short_curves(report), *_few(report)]
    return sorted(found, key=lambda n: not n.serious)


def unfinished(report: Report) -> list[Unfinished]:
    """Runs that are not, or not fully, in the numbers."""
    found = []
    for group in report.groups:
        for run in group.all_runs:
            why = run.reason.strip() or {"running": "still running"}.get(run.status, "no reason was recorded")
            if run in group.repeats:
                why = f"another run of seed {seed_of(run)} got further and counts instead" + (
                    "" if run.status == "finished" else f"; {run.status}: {why}"
                )
            elif run.status == "finished":
                continue
            goes_on = run.status in ("stopped", "failed") and run not in group.repeats
            again = f"rrl resume {run.run_id[:SHOWN]}" if goes_on else ""
            found.append(Unfinished(run, group.label, why, again))
    return found


def commit(run: Result) -> str:
    """The run's git commits, shortened; `-dirty` is kept."""
    values = run.tags.get("git_commit", "unknown").split(", then ")
    return ", then ".join(v[:10] + ("-dirty" if v.endswith("-dirty") else "") for v in values)


def _tag(name: str) -> Callable[[Result], str]:
    return lambda run: run.tags.get(name, "")


def _protocol(run: Result) -> str:
    """DMControl's suite has one only: beside others it is no difference."""
    value = run.tags.get("protocol", "")
    return "" if value == "suite" else value


def _cameras(run: Result) -> str:
    names = run.tags.get("cameras", "")
    return str(len(names.split(","))) if names and pictures(run) else ""


def _demos(run: Result) -> str:
    name, checksum = run.tags.get("demos", ""), run.tags.get("demos.checksum", "")
    return f"{name} ({checksum[:SHOWN]})" if name else ""


# (what, its value in a run or "" if it has none, whether it must only agree within a task, serious)
FACTS: tuple[tuple[str, Callable[[Result], str], bool, bool], ...] = (
    ("protocols", _protocol, False, True),
    ("rewards", _tag("reward"), False, True),
    ("horizons", _tag("horizon"), True, True),
    ("action repeats", _tag("action_repeat"), True, True),
    ("looks of the pictures", lambda run: _tag("look")(run) if pictures(run) else "", False, True),
    ("numbers of cameras", _cameras, True, True),
    ("demonstrations", _demos, True, True),
    ("versions of MuJoCo", _tag("mujoco"), False, True),
    ("versions of gymnasium-robotics", _tag("gymnasium-robotics"), False, True),
    ("versions of dm_control", _tag("dm-control"), False, True),
    ("git commits", commit, False, True),
    ("versions of torch", _tag("torch"), False, False),
    ("devices", _tag("device"), False, False),
)


def _mixed(report: Report) -> Iterator[Notice]:
    for what, value, within, serious in FACTS:
        scopes = report.tasks.values() if within else [list(report.groups)]
        for groups in scopes:
            have: dict[str, dict[str, None]] = defaultdict(dict)
            for group in groups:
                for run in group.runs:
                    if run.tags and value(run):
                        have[value(run)][group.label] = None
            if len(have) < 2:
                continue
            every = {group.label for group in groups}
            items = tuple(
                f"{v}: {'all groups' if set(labels) == every else '; '.join(labels)}"
                for v, labels in sorted(have.items())
            )
            where = f" on {groups[0].task}" if within and len(report.tasks) > 1 else ""
            yield Notice(serious, f"These runs{where} have different {what}.", items)


def _marked(report: Report) -> Iterator[Notice]:
    untrained = [g.label for g in report.groups if "UNTRAINED" in g.encoder]
    if untrained:
        text = "The encoder is UNTRAINED (random weights) in these groups:"
        yield Notice(True, text, tuple(untrained))
    blind = [g.label for g in report.groups if "(blind)" in g.encoder]
    if blind:
        yield Notice(False, "Blind on purpose (joint angles alone, a control):", tuple(blind))
    dirty = sorted({g.label for g in report.groups for run in g.runs if commit(run).endswith("-dirty")})
    if dirty:
        text = "Run from a working tree with uncommitted changes: the commit does not say what ran."
        yield Notice(False, text, tuple(dirty))
    recorded = {
        (text, g.label)
        for g in report.groups
        for run in g.runs
        for text in run.tags.get("demos.mismatches", "none").split("; ")
        if text != "none"
    }
    if recorded:
        items = tuple(f"{label}: {text}" for text, label in sorted(recorded))
        yield Notice(False, "Demonstrations were recorded under other conditions than these runs':", items)


def _short_curves(report: Report) -> Iterator[Notice]:
    items = []
    for group in report.groups:
        short: dict[str, Result] = {}
        for metric in CURVES[report.kinds[group.task]]:
            found = curve(group, metric)
            short |= {run.run_id: run for run in (found.short if found else ())}
        items += [f"{group.label}: seed {seed_of(run)} ({run.status} at {run.steps:,} steps)" for run in short.values()]
    if items:
        text = "Not in the mean lines and not in comparisons at equal samples, because they ended before the "
        yield Notice(False, text + "other seeds (thin lines show them):", tuple(items))


def _few(report: Report) -> Iterator[Notice]:
    few = [(g.label, len(g.measured)) for g in report.groups if len(g.measured) < ENOUGH]
    if few:
        text = (
            f"Fewer than {ENOUGH} seeds: intervals across seeds are not meaningful. Bands go from the lowest "
            "to the highest seed, a single seed has none; Wilson intervals tell the choice of episodes only."
        )
        yield Notice(False, text, tuple(f"{label}: {_seeds(n)}" for label, n in few))


def _seeds(count: int) -> str:
    return f"{count} seed" + ("" if count == 1 else "s")
