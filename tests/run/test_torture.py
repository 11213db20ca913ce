"""`scripts/torture.py` as its users run it, its shortest form."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "torture.py"


def test_workers_that_are_killed_change_nothing():
    asked = ["--only", "sac", "--faults", "worker-killed", "--rounds", "1", "--jobs", "1"]
    done = subprocess.run([sys.executable, SCRIPT, *asked], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = [line.split("│") for line in done.stdout.splitlines() if "│ worker-killed" in line]
    subject, times, *outcome = [cell.strip() for cell in row[2:7]]
    assert subject == "sac" and int(times) >= 1 and outcome == ["1", "1", "nothing"]
