"""What commands cost before they do anything: processor seconds of a process each, and which large libraries it
imports."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from rrl.bench.measure import Case, Entry, Sample
from rrl.machine.processes import python
from rrl.store.results import ROOT

UNIT = "processor_seconds"
REFERENCE = "import torch"
WATCHED = ("torch", "torchvision", "mlflow", "fastapi", "pandas", "matplotlib", "scipy", "mujoco")
REPORT = "report"
COMMANDS = (
    "--help",
    "list",
    "check adroit_door_state",
    "describe DAPG",
    "demos info adroit_door_paper",
    "weights list",
    REPORT,
)
RUN = "run adroit_door_state"

TOLD = """
import atexit, json, os, sys, time
from pathlib import Path
def tell():
    libraries = sorted({{name.split(".")[0] for name in sys.modules}} & {watched!r})
    Path({told!r}).write_text(json.dumps([time.process_time(), libraries]))
"""
WHOLE = "atexit.register(tell)\n"
COMMAND = """
sys.argv[:] = {words!r}
from rrl.cli import app
app()
"""
TO_THE_FIRST_STEP = """
from rrl.envs import vector
def first_step(*_):
    tell()
    sys.exit()
os.chdir(Path({told!r}).parent)
vector.WorkerVectorEnv.begin_step = first_step
"""


def cases() -> list[Case]:
    """`import torch`, the commands, and a run up to its first environment step, without its workers. The fact `imports`
    names the libraries of `WATCHED` that each has imported by then. `rrl report` is of the runs of the working folder,
    where there are some."""
    commands = [words for words in COMMANDS if words != REPORT or any(ROOT.glob("*/metrics.jsonl"))]
    return [
        _case(REFERENCE, WHOLE + "import torch"),
        *(_case(f"rrl {words}", WHOLE + COMMAND, words) for words in commands),
        _case(f"rrl {RUN}, to its first step", TO_THE_FIRST_STEP + COMMAND, RUN),
    ]


def _case(name: str, program: str, words: str = "") -> Case:
    """After a first time, which tells what it imports and leaves compiled modules behind."""
    _, imports = _run(program, words)
    against = "" if name == REFERENCE else REFERENCE
    return Case(name, lambda: Sample(_run(program, words)[0]), {"imports": " ".join(imports)}, against)


def _run(program: str, words: str) -> tuple[float, Sequence[str]]:
    """(processor seconds, libraries that were imported) of a process of its own."""
    with tempfile.TemporaryDirectory(prefix="rrl-startup-") as folder:
        told, arguments = Path(folder) / "told.json", ["rrl", *words.split()]
        arguments += ["--out", f"{folder}/report.html"] if words == REPORT else []
        text = (TOLD + program).format(watched=set(WATCHED), told=str(told), words=arguments)
        child = subprocess.Popen(python(text), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert child.stderr is not None
        said = child.stderr.read().decode(errors="replace")
        _, status, spent = os.wait4(child.pid, 0)
        if status or not told.exists():
            raise RuntimeError(f"{' '.join(arguments)} failed:\n{said}")
        own, imports = json.loads(told.read_text())
        whole = spent.ru_utime + spent.ru_stime  # of the children that it waited for too
        return (own if TO_THE_FIRST_STEP in program else whole), imports


def show(entries: Sequence[Entry], console: Console) -> None:
    """A table of medians, and of the ratios within a turn to what `import torch` takes."""
    table = Table(title="starting up", title_justify="left")
    for column in ("", "processor seconds", f"times {REFERENCE}", "of these it imports"):
        table.add_column(column, justify="right" if "s " in column else "left")
    for row in (entry.row() for entry in entries):
        low, high = row.get("ratio_quartiles", (1, 1))
        ratio = f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})" if "ratio" in row else ""
        table.add_row(row["name"], f"{row[UNIT]:.2f}", ratio, row["imports"])
    console.print(table)
