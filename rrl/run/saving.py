"""A run's checkpoint: all that decides its future, in one file beside the replay memory's segments."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field
from torch import Tensor

from rrl.agents.base import Agent
from rrl.registry import UserError
from rrl.rollout.data import Rollout
from rrl.rollout.steps import Stepper
from rrl.run.provenance import changed
from rrl.store import checkpoint, schema

CHECKPOINT = "checkpoint.safetensors"
REPLAY = "replay"
POLICY = "policy.safetensors"
BEST_POLICY = "best_policy.safetensors"

Count = Annotated[int, Field(ge=0, le=2**53)]


class _Values(pydantic.BaseModel):
    """What a checkpoint says beside its tensors; what agent, stepper and memory say is theirs to read."""

    model_config = pydantic.ConfigDict(strict=True, allow_inf_nan=False)

    iteration: Count
    steps: Count
    evaluated: Count
    rows: Count
    seconds: Annotated[float, Field(ge=0)]
    best: float | None
    identity: dict[str, str]
    finished: bool = False
    agent: dict[str, Any]
    stepper: dict[str, Any] = {}
    replay: dict[str, Any] = {}


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds; a run that has none yet is at its beginning."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.values)

    def finished(self, iterations: int) -> bool:
        """Is nothing left to do of a run of so many iterations, final evaluations included?"""
        return bool(self.values.get("finished")) and self.values["iteration"] >= iterations


def last(folder: Path, identity: dict[str, str]) -> Checkpoint:
    """The checkpoint of the run in a folder; UserError if it is damaged, or the run began with other weights or
    demonstrations than `identity` says."""
    path = folder / CHECKPOINT
    if not path.exists():
        return Checkpoint()
    try:
        tensors, values = checkpoint.load_file(path)
        schema.expect(_Values, values, path, "checkpoint")
    except UserError as error:
        raise UserError(
            f"{error}\n{folder / BEST_POLICY} may still hold the best policy; without {path.name} "
            "the run would begin again"
        ) from error
    if other := changed(values["identity"], identity):
        raise UserError(f"this run began with {', '.join(other)}: put the original files back, or begin a new run")
    return Checkpoint(tensors, values)


def save(folder: Path, agent: Agent, stepper: Stepper | None, values: dict[str, Any]) -> None:
    """Replace the checkpoint: `values` (counters and identity) and the state of agent, running episodes, memory."""
    tensors, state = agent.snapshot()
    values = values | {"agent": state}
    if stepper is not None:
        arrays, state = stepper.snapshot()
        packed, layout = checkpoint.pack({f"stepper.{name}": array for name, array in arrays.items()})
        tensors |= packed
        values["stepper"] = {"layout": layout, "values": state}
    if agent.replay is not None:
        values["replay"] = agent.replay.commit(folder / REPLAY)
    checkpoint.save_file(folder / CHECKPOINT, tensors, values)
    if agent.replay is not None:
        agent.replay.tidy(folder / REPLAY)


def restore(folder: Path, agent: Agent, stepper: Stepper | None, demos: Rollout | None, last: Checkpoint) -> None:
    """Undo of `save`, in an agent and a stepper of the same configuration. UserError where the checkpoint is of
    another one, or says what no `save` wrote."""
    if demos is not None:
        agent.remember(demos)
    path = folder / CHECKPOINT
    try:
        _same_kinds(agent, last)
        agent.restore(last.tensors, last.values["agent"])
        if stepper is not None:
            arrays = checkpoint.unpack(last.tensors, last.values["stepper"]["layout"])
            arrays = {name.removeprefix("stepper."): array for name, array in arrays.items()}
            stepper.restore(arrays, last.values["stepper"]["values"])
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError, SyntaxError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)  # torch tells names and shapes
        raise UserError(f"{path} is not of this run's {type(agent).__name__} and environments: {why}") from error
    if agent.replay is not None:
        agent.replay.load(folder / REPLAY, last.values.get("replay", {}))


def _same_kinds(agent: Agent, last: Checkpoint) -> None:
    """ValueError if a tensor of the checkpoint has another type than the agent's: torch would convert it."""
    for name, ours in agent.state_dict().items():
        if (saved := last.tensors.get(name)) is not None and saved.dtype != ours.dtype:
            raise ValueError(f"{name} holds {saved.dtype}, not {ours.dtype}")
