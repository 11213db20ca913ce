"""Videos inside the page, as many as it should carry."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rrl.report.groups import Group, Report, seed_of

LIMIT = 30_000_000  # bytes of all videos on a page, as base64
FEW_RUNS = 6  # up to which every run is shown, not one for each group


@dataclass(frozen=True)
class Film:
    """A run's last video; `data` is empty for one that is only listed."""

    caption: str
    path: Path
    data: str = ""


def films(report: Report, limit: int = LIMIT) -> list[Film]:
    """The last video of each group's first seed that has one, then those of the others if there are few; what
    does not fit in `limit` bytes is listed only."""
    runs = [[(group, run) for run in group.runs if run.videos] for group in report.groups]
    shown = [of_group[0] for of_group in runs if of_group]
    rest = [pair for of_group in runs for pair in of_group[1:]]
    few = len(shown) + len(rest) <= FEW_RUNS
    films, left = [], limit
    for group, run in [*shown, *rest]:
        path = run.videos[-1]
        size = 4 * path.stat().st_size // 3
        fits = size <= left and (few or (group, run) in shown)
        data = base64.b64encode(path.read_bytes()).decode() if fits else ""
        left -= size if fits else 0
        films.append(Film(_caption(group, seed_of(run), path), path, data))
    return sorted(films, key=lambda film: film.caption) if few else films


def _caption(group: Group, seed: int, path: Path) -> str:
    update = int(path.stem) if path.stem.isdigit() else None
    return f"{group.label}, seed {seed}" + ("" if update is None else f", after update {update}")


def listed(films: Sequence[Film]) -> list[Film]:
    """Those that are not in the page."""
    return [film for film in films if not film.data]
