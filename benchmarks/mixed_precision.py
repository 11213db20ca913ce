"""Does RAD learn the same in bf16? 500 updates on one memory of real cartpole pictures, three times:

    python benchmarks/mixed_precision.py OUT.json

in float32, in bf16 from the same weights and draws, and in float32 from other draws: what a seed changes
is the yardstick of what precision changes. All as `rrl run dmc_cartpole_swingup_rad` has it, 1,000 random
steps first.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rrl.agents.rad import RAD
from rrl.config import ginfile
from rrl.encoders.base import Inference, Precision
from rrl.envs.vector import WorkerVectorEnv
from rrl.machine.processes import keep_freed_memory
from rrl.registry import build
from rrl.rollout.steps import Stepper

UPDATES, EVERY = 500, 50
RUNS: dict[str, tuple[Precision, int]] = {
    "fp32": ("fp32", 0),
    "bf16": ("bf16", 0),
    "other draws": ("fp32", 1),
}
SHOWN = ("sac/critic_loss", "sac/q", "sac/actor_loss", "sac/entropy")


def main(path: Path) -> None:
    """Learn three times, print and write the means of every 50 updates and the policies' differences."""
    keep_freed_memory()
    config: Any = ginfile.load("dmc_cartpole_swingup_rad")
    agents: dict[str, RAD] = {}
    env = build(config.env)
    for name, (precision, draws) in RUNS.items():
        agents[name] = build(
            config.agent,
            encoder=build(config.encoder, cameras=1),
            state_dim=0,
            action_dim=1,
            seed=0,
            inference=Inference(precision=precision),
        )
        if draws:
            agents[name].generator.manual_seed(draws)
    envs = WorkerVectorEnv(env, 1, config.encoder.frames(), 0)
    stepper = Stepper(envs, 1, 0)
    for _ in range(agents["fp32"].config.init_steps):
        rollout = stepper.step(agents["fp32"])
        for agent in agents.values():
            agent.replay.add(rollout)
    envs.close()
    curves = {name: learn(agent) for name, agent in agents.items()}
    held = agents["fp32"].replay.draw(256, torch.Generator().manual_seed(9)).rows[:, :-1]
    for agent in agents.values():
        agent.seen.fill_(agent.config.init_steps)
    actions = {name: agent.act(held, None) for name, agent in agents.items()}
    apart = {name: float(np.abs(a - actions["fp32"]).mean()) for name, a in actions.items()}
    print("mean |difference| of mean actions from fp32's, 256 observations:", apart)
    path.write_text(json.dumps({"curves": curves, "actions_apart": apart}, indent=1) + "\n")


def learn(agent: RAD) -> list[dict[str, float]]:
    """500 updates; the means over every 50 of them."""
    rows: list[dict[str, float]] = []
    seen: list[dict[str, float]] = []
    for update in range(1, UPDATES + 1):
        seen.append(agent.learn(agent.draw()))
        if update % EVERY == 0:
            row = {key: float(np.mean([m[key] for m in seen if key in m])) for key in SHOWN}
            rows.append({"update": update, **row} | agent.moved())
            print(rows[-1], flush=True)
            seen = []
    return rows


if __name__ == "__main__":
    main(Path(sys.argv[1]))
