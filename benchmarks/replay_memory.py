"""Memory of a full replay memory: the growth of this process (PSS) while 100,000 pictures come in.

    python benchmarks/replay_memory.py 84 100

takes sizes of square RGB pictures; each size is measured in a process of its own. Linux only (/proc).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np

from rrl.agents.replay import Replay
from rrl.machine.processes import keep_freed_memory, memory
from rrl.rollout.data import Rollout

CAPACITY = 100_000
EPISODE = 125  # steps, as cartpole's with action repeat 8
STACK = 3  # pictures in what a policy sees


def measure(pixels: int) -> dict[str, float | int]:
    """Fill a memory of `CAPACITY` pictures half as often again as it holds, whole episodes at a time."""
    keep_freed_memory()  # as a run does
    rng = np.random.default_rng(0)
    row = 3 * pixels * pixels
    t = np.arange(EPISODE, dtype=np.int32)
    obs = rng.integers(256, size=(EPISODE + 1, row), dtype=np.uint8)
    episode = Rollout(
        obs=obs[:-1],
        actions=np.zeros((EPISODE, 1), np.float32),
        rewards=np.zeros(EPISODE),
        flags={},
        episode=np.zeros(EPISODE, np.int32),
        t=t,
        terminated=np.zeros(EPISODE, bool),
        truncated=t == EPISODE - 1,
        final_obs=obs[-1:],
    )
    before = memory(os.getpid())
    replay = Replay(CAPACITY, row, np.uint8, 1, STACK)
    for _ in range(CAPACITY * 3 // 2 // EPISODE):
        replay.add(episode, 1)
    grown = memory(os.getpid()) - before
    return {"pixels": pixels, "mb": round(grown / 1e6), "ratio": round(grown / (CAPACITY * row), 4)}


if __name__ == "__main__":
    sizes = sys.argv[1:]
    if len(sizes) == 1:
        print(json.dumps(measure(int(sizes[0]))))
    for size in sizes if len(sizes) > 1 else ():
        subprocess.run([sys.executable, __file__, size], check=True)
