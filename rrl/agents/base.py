"""The interface of agents: what data they want, how they act, how they learn."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rrl.agents.adam import Adam
from rrl.agents.replay import Replay
from rrl.agents.settings import base as settings
from rrl.agents.settings.base import AgentSteps as AgentSteps
from rrl.agents.settings.base import Episodes as Episodes
from rrl.agents.settings.base import Wants as Wants
from rrl.encoders.base import Encoder, Inference
from rrl.machine.progress import SILENCE as SILENCE
from rrl.machine.progress import Progress as Progress
from rrl.registry import Component, UserError, proposals
from rrl.rollout.data import Obs, Rollout

Metrics = dict[str, float]


class Agent(nn.Module, settings.Agent, abc.ABC):
    """Acts on what `observe` keeps of an observation and learns from rollouts and demonstrations.

    To write: `Config.wants`, `act`, `update` and, unless `rrl.agents.frozen.FrozenAgent` has it already, `observe`.
    What an agent remembers goes into parameters, buffers, `optimisers`, `generator` and `updates`: then `snapshot`
    and `restore` are complete as they stand. A frozen encoder is not part of them (its weights' checksum is a tag
    of the run).
    """

    stack: int = 1
    """How many of the latest rows that `observe` kept `act` wants to see."""
    views: int = 1
    """Of how many views of a picture `observe` encodes."""
    replay: Replay | None = None
    """What the agent draws from, if it does; it writes itself to a run's folder."""
    teacher: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None
    """Where `Config.teacher_file` names one, in training: that policy's mean actions [N, m] for the privileged numbers
    of the state [N, p]."""
    encodes: ClassVar[str] = "rrl.agents.frozen"
    """The module that encodes and shifts pictures for a frozen encoder's agents: its code decides cached features."""

    config: Any
    device: torch.device
    """Where it learns and acts."""
    generator: torch.Generator
    """For initial weights and every later random choice of its own; exploration noise comes from outside, see `act`."""
    optimisers: dict[str, Adam]
    """By name, as checkpoints keep them."""
    progress: Progress = SILENCE
    """Where `update` may say what takes minutes; a run's is its display."""
    updates: int
    """Calls of `update`, or steps of the optimisers, as the agent counts."""

    def __init__(
        self,
        config: Component.Config,
        *,
        encoder: Encoder,
        state_dim: int,
        action_dim: int,
        seed: int,
        inference: Inference,
        slots: int = 1,
        privileged: int = 0,
    ) -> None:
        """`state_dim` numbers stand beside the `encoder.dim` features, the last `privileged` of them for critics and
        teachers alone: no action depends on them, and where nobody knows them they are 0. `inference` says how the
        encoder computes, and on which device the agent does; `slots` environments are stepped together."""
        super().__init__()
        self.config, self.device = config, inference.device
        self.state_dim, self.action_dim, self.slots = state_dim, action_dim, slots
        self.privileged = privileged
        self.generator = torch.Generator().manual_seed(seed)
        self.optimisers = {}
        self.updates = 0

    @abc.abstractmethod
    def observe(self, obs: Obs) -> NDArray[Any]:
        """What to keep of a batch of observations, a row each, [N, n]: for a frozen encoder [features,
        state], float32; while the encoder learns, pictures."""

    def observe_demo(self, obs: Obs) -> NDArray[Any]:
        """As `observe`, of demonstrations: rows as `warm_start` takes them."""
        return self.observe(obs)

    def column(self, i: int) -> str:
        """What stands at place i of a row, for errors."""
        return f"number {i} of {type(self).__name__}.observe"

    def demo_column(self, i: int) -> str:
        """As `column`, of demonstrations' rows."""
        return self.column(i)

    @abc.abstractmethod
    def act(self, observed: NDArray[Any], noise: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Unclipped actions [N, m] for the latest `stack` rows of each, [N, stack * n]; `noise` [N, m] is
        standard normal, None: the mean action."""

    @contextmanager
    def acting(self) -> Iterator[None]:
        """While nothing that it observes is learnt from: it may then observe no more than it acts on."""
        yield

    def mean_action(self, row: Tensor) -> Tensor:
        """The mean action as a function of torch's, for gradients and exports: float32 rows [N, n] of features and
        state on the agent's device -> [N, m], as `act` without noise. UserError where an action depends on more than
        that, or the agent doesn't say it: as it stands."""
        raise UserError(
            f"{type(self).__name__} doesn't give its mean action as a function of features and state (`mean_action`)"
        )

    def warm_start(self, demos: Rollout | None, progress: Progress = SILENCE) -> Metrics:
        """Learn from demonstrations before the first rollout, if the agent does; `progress` is told of what
        takes minutes. As it stands: nothing to do, and refused with demonstrations, which would be ignored."""
        if demos is not None:
            raise UserError(
                f"{type(self).__name__} learns without demonstrations: set `Experiment.demos = None`, or take one of "
                f"{proposals('agent', demos='required')}"
            )
        return {}

    @abc.abstractmethod
    def update(self, rollout: Rollout) -> Metrics:
        """Learn from what the agent `wants`: one iteration's episodes, or so many steps of every environment. Metrics
        are finite: what was not measured is left out."""

    def remember(self, demos: Rollout) -> None:
        """Keep what updates need of the demonstrations: `warm_start` does, and so does a resumed run before
        `restore` (checkpoints don't hold them). As it stands: nothing."""

    def required(self, demos: Rollout | None) -> Rollout:
        """The demonstrations; UserError if there are none."""
        if demos is None:
            raise UserError(f"{type(self).__name__} needs demonstrations: set `Experiment.demos`")
        return demos

    # What is kept in files. Tensors of checkpoints and policies keep their names, or old runs can't be read.

    def policy_state(self) -> dict[str, Tensor]:
        """What acting needs beside a frozen encoder, as fresh CPU tensors: what a policy file holds. As it stands:
        every parameter and buffer."""
        return {name: cpu_copy(t) for name, t in self.state_dict().items()}

    def load_policy_state(self, tensors: dict[str, Tensor]) -> None:
        """Undo of `policy_state`, for the same networks; UserError for others."""
        ours, theirs = ({(name, *t.shape) for name, t in s.items()} for s in (self.policy_state(), tensors))
        if ours != theirs:
            names = sorted({name for name, *_ in ours ^ theirs})
            raise UserError(f"this policy is of other networks: {', '.join(names)} differ or are missing")
        self.load_state_dict({**self.state_dict(), **tensors})

    @classmethod
    def halvable(cls, name: str) -> bool:
        """May this tensor of `policy_state` be stored in float16? Layers' weights and biases may; what standardises
        observations and actions may not: features that hardly vary need its digits."""
        return name.endswith((".weight", ".bias"))

    @classmethod
    def encoder_state(cls, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """Of a checkpoint's tensors those of the encoder that the agent trained: `encoder`, its own, and `head`, of
        what the critics put on it, each by their names there. Empty: the encoder was frozen."""
        return {}

    def saved_optimisers(self) -> Mapping[str, Adam]:
        """The optimisers by the beginnings of their tensors' names in checkpoints."""
        return {f"optimiser.{name}": optimiser for name, optimiser in self.optimisers.items()}

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        """(fresh CPU tensors, JSON-able values) from which `restore` continues bit for bit: all that decides the
        agent's future, but a replay memory, which writes itself."""
        tensors = {name: cpu_copy(t) for name, t in self.state_dict().items()}
        for start, optimiser in self.saved_optimisers().items():
            tensors |= {f"{start}.{name}": t for name, t in optimiser.state().items()}
        return tensors | {"generator": self.generator.get_state()}, {"updates": self.updates}

    def restore(self, tensors: dict[str, Tensor], values: dict[str, object]) -> None:
        """Undo of `snapshot`, for an agent of the same configuration."""
        self.load_state_dict({name: tensors[name] for name in self.state_dict()})
        for start, optimiser in self.saved_optimisers().items():
            optimiser.load_state(beginning(tensors, f"{start}."))
        self.generator.set_state(tensors["generator"])
        self.updates = int(str(values.get("updates", 0)))


def diverged(config: Component.Config, when: str, what: str, step_sizes: Sequence[str] | None = None) -> UserError:
    """The error of an agent, or of an encoder that it trains, whose numbers aren't finite any more: `when` that showed,
    `what` isn't finite, and which settings to lower (None: the agent's `step_sizes`)."""
    name = config.component.__name__
    sizes = getattr(config.component, "step_sizes", ()) if step_sizes is None else step_sizes
    lower = ", ".join(f"{name}.{size} (it is {getattr(config, size):g})" for size in sizes)
    return UserError(f"{name} diverged {when}: {what}\n  start again with a lower {lower or 'learning rate'}")


def cpu_copy(x: Tensor) -> Tensor:
    """Detached, contiguous, and nobody else's."""
    return x.detach().to("cpu", copy=True).contiguous()


def beginning(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    """Those whose names begin with `start`, by the rest of their names."""
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
