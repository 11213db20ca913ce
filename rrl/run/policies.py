"""Policy files: a trained policy and the configuration that says how to use it, in one safetensors file.

policy = rrl.load_policy("policy.safetensors")
env = policy.make_env()
obs, info = env.reset(seed=0)          # and policy.reset(), of a policy that sees several pictures at once
obs, reward, terminated, truncated, info = env.step(policy.act(obs))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rrl.agents.base import Agent
from rrl.config import ginfile
from rrl.encoders import backends
from rrl.encoders.base import Encoder, Inference, Precision, cpu_has_bf16
from rrl.envs.base import EnvFactory
from rrl.registry import UserError, build
from rrl.rollout.data import Obs, Stack
from rrl.run.experiment import Experiment
from rrl.store import checkpoint


def save(path: Path, agent: Agent, config: Experiment.Config, facts: dict[str, Any]) -> None:
    """Write a policy file. `facts` must hold state_dim and action_dim, and may say where it comes from."""
    checkpoint.save_file(path, agent.policy_state(), {"config": ginfile.dumps(config), **facts})


def shipped() -> dict[str, Path]:
    """Name -> file of the policies that come with the package: state experts, and pixel policies."""
    folder = Path(str(files("rrl"))) / "data"
    found = [*folder.glob("experts/*.safetensors"), *folder.glob("policies/*.safetensors")]
    return {path.stem: path for path in sorted(found)}


def load(path: Path, *, as_run: bool = False) -> tuple[Experiment.Config, Agent, dict[str, Any]]:
    """(configuration, agent ready to act, facts) of a policy file; UserError if it is none.

    `as_run`: features are computed as the run did, by its backend (if it is installed here) in its batches;
    else by torch, in any batches.
    """
    tensors, values = checkpoint.load_file(path)
    if "config" not in values or "state_dim" not in values:
        raise UserError(f"{path} is not a policy file; runs write policy.safetensors and best_policy.safetensors")
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
    # int8 would need pictures to take its ranges from; bf16 is emulated where the processor has none.
    bf16 = config.precision == "bf16" and (device != "cpu" or cpu_has_bf16())
    precision: Precision = "bf16" if bf16 else "fp32"
    can = as_run and config.backend != "auto" and backends.get(config.backend).refusal(device, precision) is None
    backend = config.backend if can else Inference.backend
    agent: Agent = build(
        config.agent,
        encoder=encoder,
        state_dim=values["state_dim"],
        action_dim=values["action_dim"],
        seed=config.seed,
        inference=Inference(
            backend=backend,
            device=torch.device(device),
            precision=precision,
            threads=config.threads or 1,
            batch=-(-config.num_envs // (config.groups or 1)) * len(env.cameras) if as_run else None,
        ),
    )
    agent.load_policy_state({name: t.float() if t.is_floating_point() else t for name, t in tensors.items()})
    return config, agent, values | {"computed": (precision, backend)}


@dataclass(frozen=True)
class LoadedPolicy:
    """A trained policy, ready to act in an environment of its own kind."""

    config: Experiment.Config
    """The configuration of the run that made it."""
    facts: Mapping[str, Any]
    """Updates so far, encoder weights, where it comes from."""
    env: EnvFactory
    """The environment that it was trained in."""
    agent: Agent
    _history: list[Stack] = field(default_factory=list, repr=False)

    def reset(self) -> None:
        """Forget the last observations: to be called where an episode begins, by users of policies that see
        several at once (RAD, CURL, RRL_SAC, ...). For all others it does nothing."""
        self._history.clear()

    def make_env(self) -> Any:
        """A `gymnasium.Env` as the policy was trained in: its observations have what `act` needs."""
        return self.env.make_one(self.config.encoder.frames())

    def act(self, obs: Mapping[str, NDArray[Any]], noise: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """The mean action for an observation of the environment, or for a batch of them.

        `obs`: `state` float32 [p] or [N, p] and, for a policy that sees, `frames` uint8 [H, W, 3 * cameras]
        or [N, H, W, 3 * cameras]. `noise`, standard normal [m] or [N, m], makes it a sampled action. Returns
        float32 [m] or [N, m], not clipped. UserError if the policy was trained on other observations.
        """
        wanted = self.config.encoder.frames()
        needs = ("state",) if wanted is None else ("frames", "state")
        if any(name not in obs for name in needs):
            has = ", ".join(obs) or "nothing"
            raise UserError(f"this policy needs {' and '.join(needs)}; the observation has {has}")
        state = np.asarray(obs["state"], np.float32)
        if state.shape[-1] != self.facts["state_dim"]:
            raise UserError(
                f"this policy's state has {self.facts['state_dim']} numbers; got {state.shape[-1]}: "
                "make the environment with its make_env()"
            )
        frames = None
        if wanted is not None:
            frames = np.asarray(obs["frames"])
            shape = (wanted.size, wanted.size, 3 * len(self.env.cameras))
            if frames.shape[-3:] != shape or frames.dtype != np.uint8:
                raise UserError(f"this policy's frames are uint8 {shape}; got {frames.dtype} {frames.shape}")
        if frames is not None and frames.shape[:-3] != state.shape[:-1]:
            raise UserError(f"frames {frames.shape} and state {state.shape} are not of the same observations")
        drawn = None
        if noise is not None:
            drawn, shape = np.asarray(noise, np.float32), (*state.shape[:-1], self.facts["action_dim"])
            if drawn.shape != shape:
                raise UserError(f"noise for these observations must have the shape {shape}; got {drawn.shape}")
            drawn = np.atleast_2d(drawn)
        if state.ndim > 1:
            return self._act(frames, state, drawn)
        return self._act(None if frames is None else frames[None], state[None], drawn)[0]  # type: ignore[no-any-return]

    def _act(
        self, frames: NDArray[np.uint8] | None, state: NDArray[np.float32], noise: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        every, none = np.ones(len(state), bool), np.zeros(len(state), bool)
        fresh, moved = (none, every) if self._history else (every, none)
        if not self._history:
            wanted = self.config.encoder.frames()
            depths = (1 if wanted is None else wanted.stack, self.agent.stack)
            self._history.extend(Stack(len(state), depth) for depth in depths)
        pictures, kept = self._history
        if len(state) != kept.slots and max(pictures.depth, kept.depth) > 1:
            raise UserError(
                f"this policy remembers the last observations of {kept.slots} environments; got "
                f"{len(state)}: call its reset() where episodes begin"
            )
        if frames is not None:
            frames = pictures.push(frames, fresh, moved)
        return self.agent.act(kept.push(self.agent.observe(Obs(frames, state)), fresh, moved), noise)


def load_policy(source: str | Path) -> LoadedPolicy:
    """A policy from its file, or a shipped one by name (see `shipped`); UserError if there is none."""
    config, agent, facts = load(shipped().get(str(source), Path(source)))
    return LoadedPolicy(config, facts, build(config.env), agent)
