"""Policy files: a trained policy and the configuration that says how to use it, in one safetensors file.

policy = rrl.load_policy("policy.safetensors")
env = policy.make_env()
obs, info = env.reset(seed=0)          # and policy.reset(), of a policy that sees several pictures at once
obs, reward, terminated, truncated, info = env.step(policy.act(obs))
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pydantic
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from rrl.agents.base import Agent
from rrl.config import ginfile
from rrl.config.files import Finder
from rrl.config.files import find as find_file
from rrl.encoders import backends
from rrl.encoders.base import Encoder, Inference, Precision, cpu_has_bf16
from rrl.envs.base import EnvFactory
from rrl.machine.paths import caches
from rrl.registry import Component, InputFile, UserError, build
from rrl.rollout.slots import Slots
from rrl.run import provenance
from rrl.run.experiment import Experiment
from rrl.run.rounding import restored
from rrl.store import checkpoint, schema
from rrl.store.files import writing
from rrl.store.shipped import find as find
from rrl.store.shipped import shipped as shipped

FILE = "file."
"""Beginning of the names of tensors that are no part of the policy, but the bytes of files that its configuration
names."""
CARRIED = 32_000_000
"""Bytes of the largest file that an exported policy carries: an encoder that RAD trained, but not a ResNet-34."""


def save(
    path: Path, agent: Agent, config: Experiment.Config, facts: dict[str, Any], project: Path | None = None
) -> None:
    """Write a policy file. `facts` must hold state_dim and action_dim, and may say where it comes from: the encoder's
    facts, which must be the same where it is loaded, and `made_with`, which may differ. Files of the `project` are
    named relative to the policy's, so that both can move."""
    folder = path.parent if project else None
    checkpoint.save_file(path, agent.policy_state(), {"config": ginfile.dumps(config, folder, project), **facts})


def finder(path: Path, tensors: Mapping[str, Tensor]) -> Finder:
    """Finds the files that the configuration in a policy file names: those that it carries, or at their places, or of
    their names beside it. Demonstrations and teachers may be missing: acting needs none."""

    def found(component: type[Component], mark: InputFile, text: str, folders: Sequence[Path]) -> str:
        plain = text == Path(text).name != ".."  # a stranger's file must not say where it is unpacked
        if plain and (carried := tensors.get(FILE + text)) is not None:
            return str(_unpacked(text, carried.numpy().tobytes()))
        for name, places in ((text, folders), (Path(text).name, [path.parent])):
            try:
                return find_file(component, mark, name, places)
            except UserError as error:
                missing = error
        if component.kind in ("demos", "agent"):  # what an agent reads it learns from
            return text
        raise UserError(f"{missing}; put the file that the policy was trained with beside {path}")

    return found


def carry(path: Path, tensors: dict[str, Tensor], values: dict[str, Any]) -> list[Path]:
    """Add the files that acting needs to a policy file's tensors and say so in its configuration; returns those that
    are too large for that, or of one name with another."""
    config: Any = ginfile.loads(values["config"], f"{path}:config.gin", finder=finder(path, tensors))
    text, left = ginfile.dumps(config), []
    for file in ginfile.files_of(config.model_copy(update={"demos": None})):
        if file.stat().st_size > CARRIED or FILE + file.name in tensors:
            left.append(file)
        else:
            text = text.replace(repr(str(file)), repr(file.name))
            tensors[FILE + file.name] = torch.from_numpy(np.fromfile(file, np.uint8))
    values["config"] = text
    return left


def _unpacked(name: str, data: bytes) -> Path:
    """A carried file in the cache, under a checksum of its content."""
    path = caches() / "files" / hashlib.sha256(data).hexdigest()[:32] / name
    if not path.is_file() or path.read_bytes() != data:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with writing(path) as file:
                file.write(data)
        except OSError as error:
            raise UserError(f"the policy's {name} can't be unpacked: {error}; RRL_CACHE names another cache") from error
    return path


def config_of(path: Path) -> Experiment.Config:
    """The configuration in a policy file; UserError if it is none. Nothing is built."""
    config: Experiment.Config = _read(path)[2]
    return config


class _Facts(pydantic.BaseModel):
    """What a policy file says of itself and is asked for; more may stand there for people."""

    model_config = pydantic.ConfigDict(strict=True)

    config: str
    state_dim: Annotated[int, Field(ge=0)]
    action_dim: Annotated[int, Field(ge=1)]
    iteration: Annotated[int, Field(ge=0, le=2**53)] = 0
    weights: str | None = None
    made_with: dict[str, str] = {}


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], Any]:
    """(tensors, facts, configuration) of a policy file."""
    stored, values = checkpoint.load_file(path)
    if "config" not in values or "state_dim" not in values:
        raise UserError(f"{path} is not a policy file; runs write policy.safetensors and best_policy.safetensors")
    schema.expect(_Facts, values, path, "policy")
    tensors = restored(stored, path)
    weights = sum(tensor.numel() for tensor in tensors.values())
    for name in ("state_dim", "action_dim"):  # more than its networks could take: nothing is built
        if values[name] > weights:
            raise UserError(f"{path} is no policy that rrl wrote: {name} {values[name]}, and {weights} weights")
    if re.search(r"^\s*(include|import)\b", values["config"], re.MULTILINE):
        raise UserError(f"{path} is no policy that rrl wrote: its configuration takes other files in")
    return tensors, values, ginfile.loads(values["config"], f"{path}:config.gin", finder=finder(path, tensors))


def load(path: Path, *, as_run: bool = False) -> tuple[Experiment.Config, Agent, dict[str, Any]]:
    """(configuration, agent ready to act, facts) of a policy file; UserError if it is none.

    `as_run`: features are computed as the run did, by its backend (if it is installed here) in its batches;
    else by torch, in any batches. UserError where the encoder has other weights than the policy learned with; what else
    is otherwise here (versions, plugins' code) stands in the fact `others`, in words. The fact `plugins` holds the
    checksums of plugins' code.
    """
    tensors, values, config = _read(path)
    config = config.model_copy(update={"encoder": config.encoder.today(values)})
    env: EnvFactory = build(config.env)
    cameras = len(env.cameras)
    if not values["state_dim"] and config.encoder.frames() is None:
        raise UserError(f"{path} is no policy that rrl wrote: it sees neither pictures nor a state")
    encoder: Encoder = build(config.encoder, cameras=cameras)
    if other := provenance.changed(values, encoder.identity()):
        raise UserError(f"{path} was trained with another encoder: {', '.join(other)}; put the original files back")
    inference = _inference(config, cameras, as_run)
    sizes = {"state_dim": values["state_dim"], "action_dim": values["action_dim"], **env.for_critics()}
    try:
        agent: Agent = build(config.agent, encoder=encoder, seed=config.seed, inference=inference, **sizes)
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        raise UserError(f"{path} asks for larger networks than this machine has memory for: {error}") from error
    own = {name: t for name, t in tensors.items() if not name.startswith(FILE)}
    _load(agent, own, path)
    here = provenance.versions(encoder, env, config.agent.component) | provenance.environment(env)
    others = provenance.changed(values.get("made_with", {}), here)
    found = {"computed": (inference.precision, inference.backend), "others": others}
    plugins = provenance.codes([*provenance.classes(encoder, env), config.agent.component])
    return config, agent, values | found | {"plugins": plugins}


def _load(agent: Agent, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Give an agent the weights of a policy file; UserError if they are not those of such an agent."""
    expected = agent.policy_state()
    for name, tensor in tensors.items():
        if name in expected and tensor.is_floating_point() != expected[name].is_floating_point():
            raise UserError(f"{path}: {name} must be {expected[name].dtype}; got {tensor.dtype}")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(f"{path}: {name} holds numbers that are not finite")
    try:
        agent.load_policy_state({name: t.float() if t.is_floating_point() else t for name, t in tensors.items()})
    except (UserError, RuntimeError, KeyError, ValueError) as error:  # torch's modules tell names and shapes
        what = type(agent).__name__
        raise UserError(f"{path} has other weights than its own {what} with these settings: {error}") from error


def _inference(config: Experiment.Config, cameras: int, as_run: bool) -> Inference:
    """How a loaded policy's encoder computes: as the run's did, as far as this machine can."""
    device = config.device if torch.cuda.is_available() and config.device != "auto" else "cpu"
    # int8 would need pictures to take its ranges from; bf16 is emulated where the processor has none.
    bf16 = config.precision == "bf16" and (device != "cpu" or cpu_has_bf16())
    precision: Precision = "bf16" if bf16 else "fp32"
    can = as_run and config.backend != "auto" and backends.get(config.backend).refusal(device, precision) is None
    return Inference(
        backend=config.backend if can else Inference.backend,
        device=torch.device(device),
        precision=precision,
        threads=config.threads or 1,
        batch=-(-config.num_envs // (config.groups or 1)) * cameras if as_run else None,
    )


@dataclass
class LoadedPolicy:
    """A trained policy, ready to act in an environment of its own kind."""

    config: Experiment.Config
    """The configuration of the run that made it."""
    facts: Mapping[str, Any]
    """Updates so far, encoder weights, where it comes from."""
    env: EnvFactory
    """The environment that it was trained in."""
    agent: Agent
    _slots: Slots | None = field(default=None, init=False, repr=False)
    """What it saw last; None: an episode begins."""

    def reset(self) -> None:
        """Forget the last observations: to be called where an episode begins, by users of policies that see
        several at once (RAD, CURL, RRL_SAC, ...). For all others it does nothing."""
        self._slots = None

    def make_env(self) -> Any:
        """A `gymnasium.Env` as the policy was trained in: its observations have what `act` needs."""
        return self.env.make_one(self.config.encoder.frames())

    def act(self, obs: Mapping[str, NDArray[Any]], noise: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """The mean action for an observation of the environment, or for a batch of them.

        `obs`: `state` float32 [p] or [N, p] and, for a policy that sees, `frames` uint8 [H, W, 3 * cameras]
        or [N, H, W, 3 * cameras]. `noise`, standard normal [m] or [N, m], makes it a sampled action. Returns
        float32 [m] or [N, m], not clipped. UserError if the policy was trained on other observations.
        """
        observation = self._checked(obs)
        before = observation["state"].shape[:-1]
        normal = None
        if noise is not None:
            normal, shape = np.asarray(noise, np.float32), (*before, self.facts["action_dim"])
            if normal.shape != shape:
                raise UserError(f"noise for these observations must have the shape {shape}; got {normal.shape}")
        if before:
            return self._act(observation, normal)
        batch = {name: values[None] for name, values in observation.items()}
        return self._act(batch, None if normal is None else normal[None])[0]  # type: ignore[no-any-return]

    def _checked(self, obs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """What the policy needs of it, as arrays; UserError if that is not there or of other shapes."""
        wanted = self.config.encoder.frames()
        needs = ("state",) if wanted is None else ("frames", "state")
        if any(name not in obs for name in needs):
            has = ", ".join(obs) or "nothing"
            raise UserError(f"this policy needs {' and '.join(needs)}; the observation has {has}")
        state = np.asarray(obs["state"], np.float32)
        if self.env.privileged and state.shape[-1] == self.facts["state_dim"] - self.env.privileged:
            state = np.concatenate((state, np.zeros((*state.shape[:-1], self.env.privileged), np.float32)), axis=-1)
        if state.shape[-1] != self.facts["state_dim"]:
            raise UserError(
                f"this policy's state has {self.facts['state_dim']} numbers; got {state.shape[-1]}: "
                "make the environment with its make_env()"
            )
        if wanted is None:
            return {"state": state}
        frames = np.asarray(obs["frames"])
        shape = (wanted.size, wanted.size, 3 * len(self.env.cameras))
        if frames.shape[-3:] != shape or frames.dtype != np.uint8:
            raise UserError(f"this policy's frames are uint8 {shape}; got {frames.dtype} {frames.shape}")
        if frames.shape[:-3] != state.shape[:-1]:
            raise UserError(f"frames {frames.shape} and state {state.shape} are not of the same observations")
        return {"frames": frames, "state": state}

    def _act(self, observation: Mapping[str, NDArray[Any]], noise: NDArray[np.float32] | None) -> NDArray[np.float32]:
        count = len(observation["state"])
        begins = self._slots is None
        if self._slots is None or not self._slots.remembers:
            self._slots = Slots(count, self.config.encoder.frames(), self.agent.stack)
        if count != self._slots.count:
            raise UserError(
                f"this policy remembers the last observations of {self._slots.count} environments; got "
                f"{count}: call its reset() where episodes begin"
            )
        self._slots.look(self.agent, observation, np.full(count, begins), np.full(count, not begins))
        return self._slots.act(self.agent, noise)


def load_policy(source: str | Path) -> LoadedPolicy:
    """A policy from its file, the folder of an exported one or a run, or a shipped one by name (see `shipped`);
    UserError if there is none. Warns where versions or a plugin's code are others than in its training."""
    config, agent, facts = load(find(source))
    if facts["others"]:
        warnings.warn(f"{source} was trained with {', '.join(facts['others'])}", stacklevel=2)
    return LoadedPolicy(config, facts, build(config.env), agent)
