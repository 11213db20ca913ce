"""Memory of a run: the size of all its processes (PSS), before its first update and at the peak after.

    python benchmarks/memory.py adroit_door_resnet34 --set "Experiment.iterations = 1" ...

takes what `rrl run` takes. Before the first update, programs, models, simulators and
replayed demonstrations are in memory; what updates add is the difference. Linux only (/proc).
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

from rrl.machine.processes import memory

PERIOD = 1.0  # seconds between looks


def main(arguments: list[str]) -> int:
    """Run, look once a second, print the figures as JSON; returns the run's exit code."""
    command = [sys.executable, "-m", "rrl.cli", "run", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    ready = threading.Event()  # the warm start is over: everything that a run needs is in memory

    def echo() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith("warm start:"):
                ready.set()

    thread = threading.Thread(target=echo)
    thread.start()
    totals: dict[bool, list[int]] = {False: [0], True: []}
    while process.poll() is None:
        totals[ready.is_set()].append(memory(process.pid))
        time.sleep(PERIOD)
    thread.join()
    after = totals[True] or [0]
    figures = {
        "peak_while_starting_mb": max(totals[False]),
        "before_first_update_mb": after[0],
        "peak_after_mb": max(after),
        "added_mb": max(after) - after[0],
    }
    print(json.dumps({name: round(value / 1e6) for name, value in figures.items()}))
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
