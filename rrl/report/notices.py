"""What a reader must know before comparing: mixed protocols, untrained encoders, missing runs, few seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rrl.report.groups import Group, Report, seed_of
from rrl.report.numbers import ENOUGH, SPACES, curve
from rrl.store.results import OTHERWISE, Result

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
    notices = [*_mixed(report), *_renamed(report), *_marked(report), *_short_curves(report), *_few(report)]
    return sorted(notices, key=lambda notice: not notice.serious)


def unfinished(report: Report) -> list[Unfinished]:
    """Runs that are not, or not fully, in the numbers."""
    entries = []
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
            entries.append(Unfinished(run, group.label, why, again))
    return entries


def commit(run: Result) -> str:
    """The run's git commits, shortened; `-dirty` is kept."""
    values = run.tags.get("git_commit", "unknown").split(", then ")
    return ", then ".join(v[:10] + ("-dirty" if v.endswith("-dirty") else "") for v in values)


@dataclass(frozen=True)
class Fact:
    """What runs must have in common before their numbers may be compared."""

    name: str
    """In the plural."""
    value: Callable[[Result], str]
    """Empty for a run that has none."""
    scope: Callable[[Group], object] = lambda _group: None
    """Groups are compared where this is equal; by default everywhere."""
    serious: bool = True


def _tag(name: str) -> Callable[[Result], str]:
    return lambda run: run.tags.get(name, "")


def _looks(run: Result) -> str:
    return ", ".join(run.params.get(name, "") for name in run.visual) if run.pictures else ""


def _cameras(run: Result) -> str:
    names = run.tags.get("cameras", "")
    return str(len(names.split(","))) if names and run.pictures else ""


def _demos(run: Result) -> str:
    name, checksum = run.tags.get("demos", ""), run.tags.get("demos.checksum", "")
    return f"{name} ({checksum[:SHOWN]})" if name else ""


def _task(group: Group) -> str:
    return group.task


def _encoder(group: Group) -> object:
    """The encoder with its settings."""
    return group.encoder, *((name, text) for name, text in group.params.items() if name.startswith("encoder."))


FACTS = (
    Fact("protocols", _tag("protocol"), lambda group: group.params.get("env")),
    Fact("rewards", _tag("reward")),
    Fact("horizons", _tag("horizon"), _task),
    Fact("arguments of the environment", _tag("kwargs"), _task),
    Fact("action repeats", _tag("action_repeat"), _task),
    Fact("scores", lambda run: run.score.axis, _task),
    Fact("looks of the pictures", _looks),
    Fact("numbers of cameras", _cameras, _task),
    Fact("demonstrations", _demos, _task),
    Fact("weights of the encoder under the same settings", lambda run: run.fact("encoder", "weights"), _encoder),
)
"""Those of an environment go by the names that it gives them (`EnvFactory.facts`)."""


def facts(report: Report) -> list[Fact]:
    """`FACTS`, and the versions that may decide numbers."""
    versions = [Fact(f"versions of {name}", _tag(name), serious=name != "torch") for name in report.packages]
    return [*FACTS, *versions, Fact("git commits", commit), Fact("devices", _tag("device"), serious=False)]


def _mixed(report: Report) -> Iterator[Notice]:
    for fact in facts(report):
        scopes: dict[object, list[Group]] = defaultdict(list)
        for group in report.groups:
            scopes[fact.scope(group)].append(group)
        for groups in scopes.values():
            labels: dict[str, dict[str, None]] = defaultdict(dict)
            for group in groups:
                for run in group.runs:
                    if run.tags and fact.value(run):
                        labels[fact.value(run)][group.label] = None
            if len(labels) < 2:
                continue
            everyone = {group.label for group in groups}
            items = tuple(
                f"{value}: {'all groups' if set(having) == everyone else '; '.join(having)}"
                for value, having in sorted(labels.items())
            )
            where = f" on {groups[0].task}" if fact.scope is _task and len(report.tasks) > 1 else ""
            yield Notice(fact.serious, f"These runs{where} have different {fact.name}.", items)


def _renamed(report: Report) -> Iterator[Notice]:
    """Equal weights that runs call by several names: a file and its published name, or a name of an earlier version."""
    called: dict[str, dict[str, None]] = defaultdict(dict)
    for run in report.runs:
        name, _, checksum = run.fact("encoder", "weights").rpartition(":")
        if name:
            called[checksum][name] = None
    items = tuple(f"{checksum}: {', '.join(names)}" for checksum, names in called.items() if len(names) > 1)
    if items:
        yield Notice(False, "These encoders' weights are equal, and only called otherwise:", items)


def _marked(report: Report) -> Iterator[Notice]:
    untrained = [g.label for g in report.groups if "UNTRAINED" in g.encoder]
    if untrained:
        text = "The encoder is UNTRAINED (random weights) in these groups:"
        yield Notice(True, text, tuple(untrained))
    for name, serious in OTHERWISE.items():
        told = [f"{g.label}: {run.tags[name]}" for g in report.groups for run in g.runs if name in run.tags]
        if told:
            text = "The encoder was trained on other pictures than these runs':"
            yield Notice(serious, text, tuple(dict.fromkeys(told)))
    controls = [g.label for g in report.groups if g.runs[0].control]
    if controls:
        yield Notice(False, "Blind on purpose (joint angles alone, a control):", tuple(controls))
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
        for space in SPACES:
            line = curve(group, space)
            short |= {run.run_id: run for run in (line.short if line else ())}
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
