"""Updates of the SAC family on a GPU: as CUDA graphs, plainly, and (`--cpu`) on the processor.

    python benchmarks/cuda_updates.py [--cpu]

Published sizes, on memories of random transitions: a state's of walker (24 numbers, 6 actions, batch 1,024),
RAD's pictures of cartpole (batch 128, 100 -> 84 pixels). Prints updates per second, drawing and copying
included; the median of five blocks, the forms in turn.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import torch

from rrl.bench.sac import fill
from rrl.config import ginfile
from rrl.encoders.base import Inference, Precision
from rrl.registry import build

BLOCKS, SECONDS = 5, 1.5
RUNS: dict[str, tuple[str, int, int, Precision]] = {
    "state SAC": ("dmc_walker_walk_state_sac", 24, 6, "fp32"),
    "RAD fp32": ("dmc_cartpole_swingup_rad", 0, 1, "fp32"),
    "RAD bf16": ("dmc_cartpole_swingup_rad", 0, 1, "bf16"),
}


def main() -> None:
    """Measure and print."""
    if not torch.cuda.is_available():
        sys.exit("this benchmark needs a CUDA device")
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    forms = ["graphs", "plain"] + (["cpu"] if "--cpu" in sys.argv else [])
    for name, (file, state_dim, action_dim, precision) in RUNS.items():
        agents = {form: agent(file, state_dim, action_dim, precision, form) for form in forms}
        for one in agents.values():
            rate(one)  # warms up, makes the graphs
        speeds: dict[str, list[float]] = {form: [] for form in forms}
        for _ in range(BLOCKS):
            for form in forms:
                speeds[form].append(rate(agents[form]))
        text = ", ".join(
            f"{form} {statistics.median(rates):.1f} ({min(rates):.1f} to {max(rates):.1f})"
            for form, rates in speeds.items()
        )
        print(f"{name}: updates/s: {text}", flush=True)


def agent(file: str, state_dim: int, action_dim: int, precision: Precision, form: str) -> Any:
    """The file's agent with a filled memory."""
    config: Any = ginfile.load(file)
    device = torch.device("cpu" if form == "cpu" else "cuda")
    learner: Any = build(
        config.agent,
        encoder=build(config.encoder, cameras=int(state_dim == 0)),
        state_dim=state_dim,
        action_dim=action_dim,
        seed=0,
        inference=Inference(precision=precision, device=device),
    )
    learner._replayed.graphs = form == "graphs"
    fill(learner)
    return learner


def rate(learner: Any) -> float:
    """Updates per second; each ends with numbers for the log, so nothing is left running."""
    count, begin = 0, time.perf_counter()
    while time.perf_counter() < begin + SECONDS:
        learner.learn(learner.draw())
        count += 1
    return count / (time.perf_counter() - begin)


if __name__ == "__main__":
    main()
