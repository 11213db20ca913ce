"""Train a state expert by DAgger from a published expert, and save it as a policy file of this project.

    python scripts/distill_expert.py door EXPERT.npz rrl/data/experts/adroit_door_expert.safetensors

EXPERT.npz holds a tanh MLP as plain arrays: w0 b0 w1 b1 w2 b2 in_shift in_scale out_shift out_scale log_std
(the DAPG authors' policies, Rajeswaran et al. 2018, converted). The student sees the task's state observation
under the paper's protocol, acts in the simulator itself, and learns the teacher's mean action in the
states that it visits (Ross et al. 2011).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rrl.agents.npg import GaussianAgent
from rrl.config import ginfile
from rrl.encoders.base import Inference
from rrl.envs.vector import WorkerVectorEnv
from rrl.evaluators.success import in_words
from rrl.registry import build
from rrl.rollout.data import Obs, Stream, episodes
from rrl.rollout.episodes import Collector
from rrl.run import policies

TEACHER = "the DAPG authors' published policy (github.com/aravindr93/hand_dapg, Apache-2.0)"
CONFIG = """
Experiment.env = @Adroit()
Experiment.encoder = @State()
Experiment.agent = @BC()
Experiment.demos = @DemoSet()
Experiment.iterations = 0
Experiment.num_envs = 50
Experiment.workers = 2
Adroit.task = '{task}'
Adroit.state = 'task'
BC.policy_hidden = (64, 64)
"""


class Teacher:
    """The published policy's mean action."""

    stack = 1

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as file:
            self.p = {name: file[name] for name in file.files}

    def observe(self, obs: Obs) -> NDArray[np.float32]:
        return obs.state.copy()

    def act(self, observed: NDArray[np.float32], noise: Any = None) -> NDArray[np.float32]:
        p = self.p
        x = (observed - p["in_shift"]) / (p["in_scale"] + 1e-8)
        x = np.tanh(x @ p["w0"].T + p["b0"])
        x = np.tanh(x @ p["w1"].T + p["b1"])
        return ((x @ p["w2"].T + p["b2"]) * p["out_scale"] + p["out_shift"]).astype(np.float32)


def fit(agent: GaussianAgent, x: torch.Tensor, y: torch.Tensor, epochs: int, seed: int) -> float:
    """Regress the policy's mean on the teacher's actions; returns the last epoch's loss."""
    policy, generator = agent.policy, torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(policy.mlp.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    x = policy.standardise(x)
    total = 0.0
    for _ in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(x), generator=generator).split(512):
            loss = (policy(x[batch]) - y[batch]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item() * len(batch)
        schedule.step()
    return total / len(x)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["pen", "door", "hammer", "relocate"])
    parser.add_argument("teacher", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    config: Any = ginfile.loads(CONFIG.format(task=args.task))
    env, encoder = build(config.env), build(config.encoder, cameras=1)
    envs = WorkerVectorEnv(env, config.num_envs, None, config.workers)
    collector, teacher = Collector(envs), Teacher(args.teacher)
    agent: GaussianAgent = build(
        config.agent,
        encoder=encoder,
        state_dim=envs.state_dim,
        action_dim=envs.action_dim,
        seed=args.seed,
        inference=Inference(),
    )
    seen: list[NDArray[np.float32]] = []
    for round_ in range(args.rounds):
        # Some exploration widens the states that the student is taught in.
        noise = (env.horizon, envs.action_dim) if round_ % 2 else None
        todo = episodes(100, seed=args.seed, stream=Stream.TRAIN, iteration=round_, noise=noise)
        seen.append(collector.collect(agent if round_ else teacher, todo).obs)
        x = torch.as_tensor(np.concatenate(seen))
        y = torch.as_tensor(teacher.act(np.concatenate(seen)))
        if round_ == 0:
            policy = agent.policy
            policy.in_shift.copy_(x.mean(0))
            policy.in_scale.copy_(x.std(0).clamp(min=1e-3))
            policy.out_shift.copy_(y.mean(0))
            policy.out_scale.copy_(y.std(0))
            policy.set_std(torch.as_tensor(teacher.p["log_std"]).exp(), 1.0)
        loss = fit(agent, x, y, args.epochs, args.seed)
        print(f"round {round_}: {len(x):,} states, loss {loss:.5f}")
    results = {}
    for name, actor in (("teacher", teacher), ("student", agent)):
        rollout = collector.collect(actor, episodes(100, seed=args.seed, stream=Stream.EVAL))
        for flag in rollout.flags:
            print(f"{name}: {in_words([rollout], flag)}, return {rollout.returns().mean():.0f}")
            if name == "student":
                results[flag] = float(rollout.success(flag).mean())
    envs.close()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    facts = {
        "state_dim": envs.state_dim,
        "action_dim": envs.action_dim,
        "method": "DAgger, 100 episodes a round",
    }
    facts |= {"teacher": TEACHER}
    facts |= {"rounds": args.rounds, "seed": args.seed, "mean_action_success_of_100": results}
    policies.save(args.out, agent, config, facts)


if __name__ == "__main__":
    main()
