"""`rrl list`: what a gin file can name, and the policies and gin files that are shipped."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import shorten

from rrl import registry
from rrl.config import ginfile
from rrl.run.shipped import shipped as shipped_policies
from rrl.store import checkpoint

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
    """Print one kind of component, or `policies` or `files`; None: all."""
    known = (*registry.KINDS, "policies", "files")
    if kind not in (None, *known):
        raise registry.UserError(f"no kind of component is called {kind}; it is one of {', '.join(known)}")
    for shown in registry.KINDS:
        if kind in (None, shown):
            line(f"{shown}:")
            for name in registry.names(shown):
                summary = (registry.get(name).__doc__ or "").strip().partition("\n")[0]
                line(f"  {name:<14} {summary}")
    if kind in (None, "policies"):
        _policies(line)
    if kind in (None, "files"):
        _files(line)


def _policies(line: Callable[[str], None]) -> None:
    line("policies (rrl eval NAME, rrl play NAME, rrl.load_policy(NAME); a gin file of the same name is another run):")
    for name, path in shipped_policies().items():
        values = checkpoint.load_values(path)
        made = ginfile.flatten_text(values["config"], str(path))
        line(f"  {name:<26} {made['encoder']}, {made['agent']}, {values.get('iteration', 0)} updates")


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
