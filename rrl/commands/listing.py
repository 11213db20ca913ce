"""`rrl list`: what a gin file can name, and the policies and gin files that are shipped."""

from __future__ import annotations

from collections.abc import Callable

from rrl import registry
from rrl.commands import contents
from rrl.config import ginfile
from rrl.store import checkpoint
from rrl.store.shipped import shipped as shipped_policies


def show(kind: str | None, line: Callable[[str], None]) -> None:
    """Print one kind of component, or `policies`; None: all, and the names of the gin files."""
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
    if kind is None:
        contents.show_names(line)


def _policies(line: Callable[[str], None]) -> None:
    line("policies (rrl eval NAME, rrl play NAME, rrl.load_policy(NAME); a gin file of the same name is another run):")
    for name, path in shipped_policies().items():
        values = checkpoint.load_values(path)
        made = ginfile.flatten_text(values["config"], str(path))
        line(f"  {name:<26} {made['encoder']}, {made['agent']}, {values.get('iteration', 0)} updates")
