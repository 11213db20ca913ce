"""Policy files: a trained policy and the configuration that says how to use it, in one safetensors file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rrl import checkpoint, ginfile
from rrl.agents.base import Agent
from rrl.encoders.base import Encoder, Inference
from rrl.envs.base import EnvFactory
from rrl.registry import UserError, build

if TYPE_CHECKING:
    from rrl.experiment import Experiment


def save(path: Path, agent: Agent, config: Experiment.Config, facts: dict[str, Any]) -> None:
    """Write a policy file. `facts` must hold state_dim and action_dim, and may say where it comes from."""
    checkpoint.save_file(path, agent.policy_state(), {"config": ginfile.dumps(config), **facts})


def load(path: Path) -> tuple[Experiment.Config, Agent, dict[str, Any]]:
    """(configuration, agent ready to act, facts) of a policy file; UserError if it is none."""
    tensors, values = checkpoint.load_file(path)
    if "config" not in values or "state_dim" not in values:
        raise UserError(
            f"{path} is not a policy file; runs write policy.safetensors and best_policy.safetensors"
        )
    config: Any = ginfile.loads(values["config"], f"{path}:config.gin")
    env: EnvFactory = build(config.env)
    encoder: Encoder = build(config.encoder, cameras=len(env.cameras))
    facts = encoder.facts()
    changed = [key for key, value in facts.items() if key in values and values[key] != value]
    if changed:
        raise UserError(
            f"{path} was trained with other encoder weights: {values[changed[0]]}, here {facts[changed[0]]}"
        )
    device = config.device if torch.cuda.is_available() and config.device != "auto" else "cpu"
    precision = config.precision
    agent: Agent = build(
        config.agent,
        encoder=encoder,
        state_dim=values["state_dim"],
        action_dim=values["action_dim"],
        seed=config.seed,
        # int8 would need pictures to take its ranges from; float32 features are what it approximates.
        inference=Inference(device=torch.device(device), precision="bf16" if precision == "bf16" else "fp32"),
    )
    agent.load_policy_state(tensors)
    return config, agent, values
