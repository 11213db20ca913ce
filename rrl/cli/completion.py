"""What a shell offers when Tab is pressed, without torch but once after code has changed, for the names of components
(`rrl.commands.known`)."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import wraps
from io import StringIO
from pathlib import Path
from typing import TypeVar

import typer

from rrl.cli.group import WORDS

Offers = list[str] | list[tuple[str, str]]
"""Words, or words each with what it is, which some shells show."""
F = TypeVar("F", bound=Callable[..., Offers])


def _quiet(complete: F) -> F:
    """What goes wrong meanwhile offers nothing: a message would be written into the line that is being typed."""

    @wraps(complete)
    def wrapped(*args: object, **kwargs: object) -> Offers:
        with redirect_stderr(StringIO()):
            try:
                return complete(*args, **kwargs)
            except Exception:
                return []

    return wrapped  # type: ignore[return-value]


@_quiet
def gin_files(incomplete: str) -> Offers:
    """Shipped ones by name; those of the folder that is being typed, and folders that hold some."""
    from rrl.config import ginfile

    folder = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    here = sorted(folder.iterdir()) if folder.is_dir() else []
    typed = [str(path) for path in here if path.suffix == ".gin" and path.is_file()]
    typed += [f"{path}/" for path in here if path.is_dir() and any(any(path.glob(p)) for p in ("*.gin", "*/*.gin"))]
    return [name for name in dict.fromkeys([*ginfile.shipped(), *typed]) if name.startswith(incomplete)]


@_quiet
def runs(incomplete: str) -> Offers:
    """Runs and sweeps of this folder: the shortest ids that are shown and tell them apart."""
    from rrl.store import files, results

    known = {path.parent.name: path for name in (results.RUN, results.SWEEP) for path in results.ROOT.glob(f"*/{name}")}
    short = [run_id[: results.ID] for run_id in known]
    ids = {s if short.count(s) == 1 and s.startswith(incomplete) else i: i for i, s in zip(known, short, strict=True)}
    return [(word, str(files.read_json(known[i]).get("name", ""))) for word, i in ids.items()]


@_quiet
def gin_files_and_runs(incomplete: str) -> Offers:
    """Both."""
    ids = (each if isinstance(each, str) else each[0] for each in runs(incomplete))
    return [*(str(name) for name in gin_files(incomplete)), *ids]


@_quiet
def components(incomplete: str) -> Offers:
    """All components."""
    from rrl.commands import known

    return list(known.components())


@_quiet
def kinds(incomplete: str) -> Offers:
    """What `rrl list` takes."""
    from rrl.registry import KINDS

    return [*KINDS, "policies", "files"]


@_quiet
def settings(ctx: typer.Context, incomplete: str) -> Offers:
    """`Component.field=` for the components that the gin files and settings typed so far name; without any, for all."""
    from rrl.commands import known
    from rrl.commands.typed import is_gin
    from rrl.config import ginfile

    words: list[str] = ctx.meta[WORDS]
    fields = known.components()
    sources = [word for word in words if is_gin(word)]
    named = [name for source in sources for name in ginfile.names_in(source)]
    named += [name for word in words for name in re.findall(r"@([\w/]+)\(", word)]
    wanted = {name: fields.get(name.rpartition("/")[2], []) for name in dict.fromkeys(named)} if sources else fields
    return [f"{name}.{field}=" for name, held in wanted.items() for field in held]
