"""`rrl list`: what a gin file can name, and the gin files that are shipped."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import shorten

from rrl import registry
from rrl.config import ginfile

FOLDERS = {
    "": "rrl run NAME",
    "ablations": "rrl run NAME",
    "results": "rrl run NAME; see docs/results.md",
    "sweeps": "rrl sweep NAME",
    "pretrain": "rrl pretrain NAME",
    "probe": "rrl probe NAME",
}
"""How the shipped files of each folder are used; beside these there are parts of runs."""


def show(kind: str | None, line: Callable[[str], None]) -> None:
    """Print one kind of component, or `files`; None: all."""
    if kind not in (None, *registry.KINDS, "files"):
        known = ", ".join(registry.KINDS)
        raise registry.UserError(f"no kind of component is called {kind}; it is one of {known}, files")
    for shown in registry.KINDS:
        if kind in (None, shown):
            line(f"{shown}:")
            for name in registry.names(shown):
                summary = (registry.get(name).__doc__ or "").strip().partition("\n")[0]
                line(f"  {name:<14} {summary}")
    if kind in (None, "files"):
        _files(line)


def _files(line: Callable[[str], None]) -> None:
    shipped = ginfile.shipped()
    for folder, use in FOLDERS.items():
        line(f"gin files ({use}):")
        for name in shipped:
            if name.rpartition("/")[0] == folder:
                line(f"  {name}")
    line("parts of runs (combine: rrl run env/X encoder/Y method/Z; the last wins, a method may bring an encoder;")
    line("  eval/ is for finished ones too: rrl eval RUN_OR_FILE --with eval/X):")
    for name in ginfile.fragments():
        headline = shipped[name].read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("# ")
        line(f"  {name:<26} {shorten(headline, 92, placeholder=' ...')}")
