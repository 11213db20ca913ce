"""A sweep against the same runs one after another: wall-clock seconds of both, and their ratio.

    python benchmarks/sweep.py [FOLDER]

8 runs of Adroit door, 3 updates each: pixels (MobileNetV2) and state, DAPG and NPG, 2 seeds. They are done as
`rrl run` with its defaults, which take the whole machine, and as `rrl sweep --jobs 2`. Both ways replay the
demonstrations.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMON = """
Experiment.iterations = 3
Experiment.num_envs = 5
Experiment.evaluators = (@SuccessRate(),)
SuccessRate.episodes = 5
Adroit.horizon = 100
"""
DAPG = "DAPG.trajectories = 10\nDemoSet.episodes = 5\n"
NPG = "NPG.trajectories = 10\n"
FILES = {
    "pixels_dapg": "include 'adroit_door_mobilenetv2'\n" + COMMON + DAPG,
    "pixels_npg": "include 'adroit_door_mobilenetv2'\ninclude 'method/npg'\n" + COMMON + NPG,
    "state_dapg": "include 'adroit_door_state'\n" + COMMON + DAPG,
    "state_npg": "include 'adroit_door_state'\ninclude 'method/npg'\n" + COMMON + NPG,
}
SEEDS = (0, 1)


def timed(folder: Path, commands: list[list[str]]) -> float:
    """Wall-clock seconds of `rrl` commands, one after another, with a cache of their own."""
    env = {**os.environ, "RRL_CACHE": str(folder / "cache")}
    start = time.monotonic()
    with (folder / "log.txt").open("a") as log:
        for arguments in commands:
            command = [sys.executable, "-m", "rrl.cli", *arguments]
            subprocess.run(command, cwd=folder, env=env, stdout=log, stderr=log, check=True)
    return time.monotonic() - start


def main(place: Path) -> None:
    """Time both ways and print JSON."""
    runs = place / "files"
    runs.mkdir(parents=True)
    for name, text in FILES.items():
        (runs / f"{name}.gin").write_text(text)
    one, many = place / "one_by_one", place / "sweep"
    for folder in (one, many):
        folder.mkdir()
    sequence = [
        ["run", str(runs / f"{name}.gin"), "--set", f"Experiment.seed = {seed}"] for name in FILES for seed in SEEDS
    ]
    # The plan's measurement of speeds is made once per machine and kept; it is no part of the runs.
    timed(many, [["sweep", str(runs), "--seeds", "0,1", "--jobs", "2", "--dry-run"]])
    seconds = {
        "one_by_one": timed(one, sequence),
        "sweep": timed(many, [["sweep", str(runs), "--seeds", "0,1", "--jobs", "2"]]),
    }
    print(
        json.dumps(
            {
                **{k: round(v, 1) for k, v in seconds.items()},
                "ratio": round(seconds["sweep"] / seconds["one_by_one"], 3),
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()).absolute())
