"""Files that must never run, in the folder that a command works in."""

import sys
from importlib.metadata import packages_distributions
from pathlib import Path

TRAP = "open({mark!r}, 'a').write(__file__ + '\\n')\nraise SystemExit('a file of the working folder ran')\n"
OWN = ("sitecustomize", "usercustomize", "gunicorn.conf", "cli", "rrl", "helpers")


def set_traps(folder: Path) -> Path:
    """Every module of Python, and every installed one, gets a namesake here that leaves a mark."""
    for name in {*sys.stdlib_module_names, *packages_distributions(), *OWN} - {"__main__"}:
        if name.replace(".", "").replace("_", "").isalnum():
            (folder / f"{name}.py").write_text(TRAP.format(mark=str(folder / "mark")))
    return folder


def untouched(folder: Path) -> bool:
    """No trap has run; what ran is in the error."""
    mark = folder / "mark"
    assert not mark.exists(), f"these ran: {mark.read_text()}"
    return True
