"""`rrl diff`: settings of gin files and of runs that differ, and the lines that decided them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrl.config import ginfile, origins
from rrl.config.files import Finder, find
from rrl.config.grammar import Binding
from rrl.config.resolve import Origin
from rrl.config.words import places
from rrl.machine import terminal
from rrl.machine.console import wrapped
from rrl.registry import UserError
from rrl.report import compare
from rrl.report.groups import ABSENT
from rrl.store import results
from rrl.store.results import CONFIG


@dataclass(frozen=True)
class Side:
    """What a gin file, or the runs of one method, say."""

    title: str
    root: str
    """The root component."""
    values: Mapping[str, str]
    """Flat name -> value, such as `agent.step_size` -> `0.05`."""
    origins: Mapping[str, Sequence[Origin]]
    """By flat name; none for a default."""


def diff(
    first: str,
    second: str,
    say: Callable[[str], None],
    *,
    as_json: bool = False,
    width: int | None = None,
    root: Path | None = None,
) -> None:
    """Say which settings of two gin files or runs differ by value. `width`: columns of the screen; None: of the
    terminal, if there is one, else without limit."""
    a, b = side(first, root), side(second, root)
    if a.root != b.root:
        raise UserError(f"{first} describes {a.root}, {second} {b.root}: they have no settings in common")
    names = compare.differing(a.values, b.values)
    if as_json:
        settings = {name: {"a": _record(a, name), "b": _record(b, name)} for name in names}
        say(json.dumps({"a": a.title, "b": b.title, "settings": settings}, indent=2))
        return
    width = width or terminal.width()
    for name, each in (("A", a), ("B", b)):
        say(wrapped(f"{name}  {each.title}", width))
    if not names:
        say("no setting differs")
    rows = [(name, *(_told(each, name) for each in (a, b))) for name in names]
    compare.section("settings that differ", rows, say, width)


def side(name: str, root: Path | None = None) -> Side:
    """The gin file (a path or a shipped name) or the run, as `rrl compare` names runs, that a name means."""
    bare = name.removesuffix(".gin")
    if Path(name).is_file() or name.endswith(".gin") or bare in ginfile.shipped():
        top, _ = ginfile.root_of([name])
        return _side(name, name, top, Path())
    try:
        group = compare.side(name, root)
    except UserError as error:
        near = ginfile.near(name)
        raise UserError(f"{error}\n  Nor is it a gin file{': the nearest is ' + near[0] if near else ''}") from error
    run = group.runs[0]
    project = results.project(run.folder)
    try:  # the finder: files that a run names need not be here any more
        said = _side(str(run.folder / CONFIG), "", "Experiment", project, lambda component, mark, text, folders: text)
    except UserError:  # today's schema refuses it: what it said then stays true
        said = Side("", "Experiment", {}, {})
    recorded = {
        name: ", ".join(dict.fromkeys(each.params.get(name, ABSENT) for each in group.runs))
        for name in dict.fromkeys(name for each in group.runs for name in each.params)
    }
    return Side(compare.heading(group), said.root, {**said.values, **recorded}, said.origins)


def _side(source: str, title: str, top: str, project: Path, finder: Finder = find) -> Side:
    config, resolver = ginfile.resolved(source, (), top, finder)
    said = list(places(config, project, silent=True))
    values = {place: text for place, text, _, _ in said}
    return Side(title, top, values, {place: resolver.origins(node, field) for place, _, node, field in said})


def _told(each: Side, name: str) -> str:
    value = each.values.get(name, ABSENT)
    return f"{value}  ({origins.where(each.origins[name])})" if name in each.origins else value


def _record(each: Side, name: str) -> dict[str, Any] | None:
    """None where a side has no such setting."""
    if name not in each.values:
        return None
    bindings: list[list[Binding]] = [list(origin.bindings) for origin in each.origins.get(name, ())]
    return {
        "value": each.values[name],
        "default": name in each.origins and not bindings,
        "from": [[origins.record(binding) for binding in chain] for chain in bindings],
    }
