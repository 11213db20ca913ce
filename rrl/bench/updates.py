"""`rrl bench updates`: policy steps and value fits per second, against their plain form on the same batch."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rrl.agents.networks import GaussianPolicy, ValueNet
from rrl.agents.npg import NPG
from rrl.bench.measure import Case, Facts, Sample, reference
from rrl.encoders.base import Inference
from rrl.encoders.state import State

UNIT = "updates_per_second"
HORIZON = 200


def cases(
    samples: int = 40_000,
    obs_dim: int = 536,
    action_dim: int = 28,
    hidden: Sequence[int] = (256, 256),
    seed: int = 0,
) -> list[Case]:
    """The plain policy step and ours, the plain value fit and ours: on a GPU if there is one, with torch's
    threads. Every repeat starts from the same weights. By default the paper's size (200 episodes of 200
    steps, ResNet-34's features and the joints).
    """
    batch = Batch(samples, obs_dim, action_dim, hidden, seed)
    facts: Facts = {
        "samples": samples,
        "obs_dim": obs_dim,
        "action_dim": action_dim,
        "hidden": str(tuple(hidden)),
        "device": batch.device.type,
        "threads": torch.get_num_threads(),
    }
    works: dict[str, Callable[[], Callable[[], object]]] = {
        "npg reference": batch.plain_step,
        "npg": batch.step,
        "value fit reference": batch.plain_fit,
        "value fit": batch.fit,
    }
    against = {"npg": "npg reference", "value fit": "value fit reference"}
    return [Case(name, _timed(work), facts, against.get(name, "")) for name, work in works.items()]


def step_error(
    samples: int = 40_000,
    obs_dim: int = 536,
    action_dim: int = 28,
    hidden: Sequence[int] = (256, 256),
    seed: int = 0,
) -> float:
    """|our step - plain step| / |plain step| in the policy's parameters, on the batch of `cases`.

    Both are float32. Right after cloning, with log_std among the most curved directions, ten iterations
    amplify rounding far more: there the plain step misses its own float64 result by up to 0.6 % (measured on
    8,000 samples), ours by up to 0.02 %.
    """
    batch = Batch(samples, obs_dim, action_dim, hidden, seed)
    before = batch.agent.policy.flat()
    plain = copy.deepcopy(batch.agent.policy)
    batch.plain.policy_step(plain, batch.obs, batch.actions, batch.advantages)
    batch.step()()
    expected, got = plain.flat() - before, batch.agent.policy.flat() - before
    return float((got - expected).norm() / expected.norm())


class Batch:
    """An agent, and a batch like one of its iterations: features >= 0 as ReLU leaves them, of different sizes
    and correlated, inputs scaled as cloning scales them, actions of the policy, whitened advantages."""

    def __init__(self, samples: int, obs_dim: int, action_dim: int, hidden: Sequence[int], seed: int) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.agent = NPG(
            NPG.Config.model_validate({"policy_hidden": tuple(hidden)}),
            encoder=State(State.Config()),
            state_dim=obs_dim,
            action_dim=action_dim,
            seed=seed,
            inference=Inference(device=self.device),
        )
        self.plain: Any = reference("reference_npg")
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(self.device)

        self.obs = normal(samples, obs_dim)
        self.obs.addmm_(normal(samples, 16), normal(16, obs_dim), alpha=0.1).relu_()
        self.obs.mul_(normal(obs_dim).exp())
        policy = self.agent.policy
        with torch.no_grad():
            for parameter in policy.mlp[-1].parameters():
                parameter.mul_(30)  # as after cloning: it begins near zero
        policy.set_std(0.3 * normal(action_dim).mul(0.3).exp(), 1.0)
        policy.in_shift.copy_(self.obs.mean(0))
        policy.in_scale.copy_(self.obs.std(0))
        policy.out_scale.copy_(2 * policy.log_std.detach().exp())  # exploration has halved since cloning
        with torch.no_grad():
            self.actions = policy.mean(self.obs) + policy.log_std.exp() * normal(samples, action_dim)
        self.advantages = normal(samples)
        self.features = ValueNet.features(self.obs, (torch.arange(samples) % HORIZON).numpy())
        self.returns = 10 * (self.features[:, 0] + normal(samples))
        self._policy = copy.deepcopy(policy)
        self._value = copy.deepcopy(self.agent.value)
        self._orders = [torch.randperm(samples, generator=generator).to(self.device) for _ in range(2)]

    def plain_step(self) -> Callable[[], object]:
        """One policy step of the reference, ready to run."""
        policy: GaussianPolicy = copy.deepcopy(self._policy)
        return lambda: self.plain.policy_step(policy, self.obs, self.actions, self.advantages)

    def step(self) -> Callable[[], object]:
        """One policy step of NPG, ready to run."""
        self.agent.policy.load_state_dict(self._policy.state_dict())
        advantages = self.advantages.double().cpu().numpy()
        return lambda: self.agent.step_policy(self.obs, self.actions, advantages)

    def plain_fit(self) -> Callable[[], object]:
        """One value fit of the reference, ready to run."""
        value: ValueNet = copy.deepcopy(self._value)
        return lambda: self.plain.fit_value(value, self.features, self.returns, self._orders)

    def fit(self) -> Callable[[], object]:
        """One value fit of NPG, ready to run."""
        self.agent.value.load_state_dict(self._value.state_dict())
        self.agent.value_optimiser.reset()
        return lambda: self.agent.fit_value(self.features, self.returns)


def _timed(ready: Callable[[], Callable[[], object]]) -> Callable[[], Sample]:
    def run() -> Sample:
        work = ready()
        start = time.perf_counter()
        work()  # ends with numbers for the log, so nothing is left running on a GPU
        return Sample(1 / (time.perf_counter() - start))

    return run
