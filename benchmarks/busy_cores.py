"""What a busy process beside it costs a training, with OpenMP's own way of waiting and with rrl's.

`python benchmarks/busy_cores.py` (Linux, 3 minutes); prints JSON: updates per second of SAC from state (batch
256, hidden 1024, one thread per core), alone and beside a process that keeps one core busy. As in two
terminals: each process is a session of its own, among which Linux shares out the processor.
"""

import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np
import torch

from rrl.agents.replay import Batch
from rrl.agents.sac import SAC
from rrl.encoders.base import Inference
from rrl.encoders.state import State

REPEATS = 3
SECONDS = 8.0
WAITING = {"OpenMP's": {}, "rrl's": {"GOMP_SPINCOUNT": "1000"}}
STATE, ACTIONS = 9, 2  # finger spin


def updates_per_second() -> float:
    """Of one agent in this process."""
    agent = SAC(
        SAC.Config(batch=256),
        encoder=State(State.Config(), cameras=0),
        state_dim=STATE,
        action_dim=ACTIONS,
        seed=0,
        inference=Inference(),
    )
    rng = np.random.default_rng(0)
    size = agent.config.batch
    batch = Batch(
        rows=rng.standard_normal((size, 2, STATE), np.float32),
        actions=torch.as_tensor(rng.uniform(-1, 1, (size, ACTIONS)).astype(np.float32)),
        rewards=torch.as_tensor(rng.uniform(0, 1, size).astype(np.float32)),
        not_done=torch.ones(size),
    )
    agent.learn(batch)  # makes the memory that later updates reuse
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        agent.learn(batch)
        done += 1
    return done / (time.perf_counter() - start)


def main() -> None:
    """Time both ways of waiting in turn, alone and beside a busy process."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    rates: dict[str, list[float]] = {}
    for _ in range(REPEATS):
        for place in ("alone", "beside a busy process"):
            busy = None
            if place != "alone":
                busy = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
            try:
                for name, settings in WAITING.items():
                    done = subprocess.run(
                        [sys.executable, __file__, "child"],
                        env=clean | settings,
                        stdout=subprocess.PIPE,
                        text=True,
                        check=True,
                        start_new_session=True,
                    )
                    rates.setdefault(f"{place}, {name} waiting", []).append(float(done.stdout))
            finally:
                if busy is not None:
                    busy.kill()
                    busy.wait()
    summary = {name: {"median": statistics.median(x), "all": x} for name, x in rates.items()}
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    if sys.argv[1:] == ["child"]:
        print(updates_per_second())
    else:
        main()
