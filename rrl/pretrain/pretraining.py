"""What `rrl pretrain` does: a root component beside `Experiment`, and its parts made from it."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from rrl.config import ginfile
from rrl.demos.sets import with_objects
from rrl.encoders.settings import task
from rrl.envs.base import EnvFactory, FrameRequest
from rrl.machine.cores import MOST_THREADS, cores
from rrl.registry import (
    Component,
    InputFile,
    Positive,
    PositiveOrZero,
    Samples,
    Seed,
    UserError,
    build,
    mistake,
    register,
)
from rrl.store import shipped
from rrl.store.pictures import PictureStore

if TYPE_CHECKING:  # torch: whoever only reads a configuration needs none
    from rrl.encoders.task import TaskEncoder

KINDS = ("expert", "small noise", "large noise", "random")
"""The kinds of actions that pictures come from, in the order of `Pretraining.mixture`."""
Share = Annotated[float, Field(ge=0, le=1)]
Std = Annotated[float, Field(ge=0, le=2)]
"""Of noise on actions, which are in [-1, 1]."""


def _remedy() -> str:
    return f"name a shipped policy ({', '.join(shipped.shipped())}), or a policy.safetensors of a run of yours"


@register
class Pretraining(Component):
    """One training of an encoder on a task's pictures, without rewards: what `rrl pretrain` does."""

    kind: ClassVar[str] = "pretraining"

    class Config(Component.Config):
        """Which pictures, and how an encoder learns them."""

        env: EnvFactory.Config
        """The environment whose pictures they are: its cameras and look, such as @Adroit()."""
        encoder: task.TaskEncoder.Config
        """What is trained, such as @VAE(), untrained."""
        policy: Annotated[str | None, InputFile(".safetensors", lambda _: shipped.shipped(), _remedy)] = None
        """The expert: the name of a shipped policy, or the path of a policy file, relative to the gin file. It acts in
        its own observations of the same task. None: only random actions."""
        pictures: Annotated[int, Field(gt=0, le=10**9)] = 1_000_000
        """Pictures of the data set, all cameras together (paper: 1M)."""
        mixture: tuple[Share, Share, Share, Share] = (0.25, 0.25, 0.25, 0.25)
        """Shares of the pictures from episodes of the expert, the expert with small noise, the expert with large
        noise, and random actions (paper: a quarter each). Their sum is 1."""
        noise: tuple[Std, Std] = (0.1, 0.3)
        """Std of the small and of the large noise, added to the expert's mean actions, which are in [-1, 1] (the
        paper's are not known)."""
        epochs: Annotated[int, Field(gt=0, le=100_000)] = 10
        """Passes over the pictures (paper: 10)."""
        batch: Samples = 144
        """Pictures of a step (the credited code: 144; a last incomplete batch is left out)."""
        lr: Positive = 0.005
        """Adam's learning rate in the first epoch (the credited code's)."""
        decay: Annotated[float, Field(gt=0, le=1)] = 0.95
        """Factor of the learning rate after each epoch (the credited code's)."""
        kl_weight: PositiveOrZero = 0.000147
        """Weight of what keeps the features in order (a VAE's KL divergence, summed over the latent), beside the mean
        squared error of the pixels (the credited code of mid-2021: batch / pictures in training, of the paper's 1M
        here, whatever `pictures` is: with a tenth of them that rule would weigh it ten times as much)."""
        held_out: Annotated[float, Field(ge=0, le=0.5)] = 0.02
        """Share of each kind's pictures, the last ones, that is not trained on: for losses and reconstructions."""
        seed: Seed = 0
        """Decides every random choice: episodes, initial weights, the order of the pictures, the latent's noise."""
        num_envs: Annotated[int, Field(gt=0, le=4_096)] = 20
        """Environments of one collection; fixes the batches that the expert sees."""
        name: Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9][\w.-]*$")] | None = None
        """The encoder's file is `runs/<name>.safetensors`, unless `rrl pretrain --out` says otherwise. None: encoder
        and task, such as vae_adroit_door."""
        device: Literal["auto", "cpu", "cuda"] = "auto"
        """Where the network is trained; auto: CUDA if there is one."""
        precision: Literal["auto", "fp32", "bf16"] = "auto"
        """Of convolutions and linear layers; auto: bf16 on CUDA and where the processor computes in it, else fp32."""
        threads: Annotated[int, Field(gt=0, le=MOST_THREADS)] | None = None
        """CPU threads of torch; None: OMP_NUM_THREADS, or one per core."""
        workers: Annotated[int, Field(ge=0, le=1_024)] | None = None
        """Processes that simulate and render (they change no bit); None: one per core; 0: in this process."""

        @field_validator("encoder")
        @classmethod
        def _untrained(cls, encoder: task.TaskEncoder.Config) -> task.TaskEncoder.Config:
            if encoder.weights is not None:
                name = f"{encoder.component.__name__}.weights"
                raise mistake("encoder", f"{name} must be None here: it is what comes of it", f"set `{name} = None`")
            return encoder

        @model_validator(mode="after")
        def _fits_together(self) -> Pretraining.Config:
            if abs(sum(self.mixture) - 1) > 1e-6:
                message = f"Pretraining.mixture must sum to 1; got {self.mixture}, which is {sum(self.mixture):g}"
                raise mistake("mixture", message, "such as (0.25, 0.25, 0.25, 0.25), or (1.0, 0.0, 0.0, 0.0)")
            if any(self.mixture[:3]) and self.policy is None:
                hint = f"{_remedy()}; or set `Pretraining.mixture = (0.0, 0.0, 0.0, 1.0)`"
                raise mistake("policy", "Pretraining.mixture asks for an expert, but Pretraining.policy is None", hint)
            env: EnvFactory = build(self.env)
            if not env.cameras:
                raise mistake("env", f"{env.name} has no cameras: nothing can be seen", "take another environment")
            trained = self.pictures - sum(held for _, held in parts(self))
            if trained < self.batch:
                message = f"Pretraining.batch is {self.batch}, but only {trained:,} pictures are trained on"
                raise mistake("pictures", message, "set more `Pretraining.pictures`, or a smaller batch")
            return self

        @property
        def title(self) -> str:
            """What files and titles call it."""
            encoder, env = self.encoder.component.__name__, build(self.env).name
            return self.name or f"{encoder.lower()}_{env}"

    def __init__(self, config: Config) -> None:
        """Of a `resolve`d configuration. UserError where the simulator refuses its settings, or the policy is no such
        file or acts in another task."""
        from rrl.run import policies

        self.config = config
        self.env: EnvFactory = build(with_objects(config.env))
        """With all that can be observed in the state: experts act from it."""
        self.frames: FrameRequest = _frames(config.encoder)
        self.env.probe(self.frames)
        self.expert = None if config.policy is None else policies.load(shipped.find(config.policy))[:2]
        if self.expert and (name := build(self.expert[0].env).name) != self.env.name:
            raise UserError(f"{config.policy} is an expert of {name}, and the pictures are to be of {self.env.name}")
        self.encoder: TaskEncoder = build(config.encoder.model_copy(update={"seed": config.seed}), cameras=1)

    @cached_property
    def data(self) -> dict[str, Any]:
        """What decides the pictures: JSON-able."""
        config = self.config
        policy = None
        if config.policy is not None:
            content = shipped.find(config.policy).read_bytes()
            policy = f"{Path(config.policy).name} (sha256 {hashlib.sha256(content).hexdigest()[:12]})"
        return {
            "env": self.env.facts(),
            "side": self.frames.size,
            "pictures": config.pictures,
            "mixture": list(config.mixture),
            "noise": list(config.noise),
            "policy": policy,
            "seed": config.seed,
            "num_envs": config.num_envs,
        }

    @cached_property
    def fingerprint(self) -> str:
        """Of all that decides the encoder's file, but versions."""
        other = {"workers", "threads", "device", "name", "policy"}
        settings = {name: value for name, value in ginfile.flatten(self.config).items() if name not in other}
        return hashlib.sha256(json.dumps([settings, self.data], sort_keys=True).encode()).hexdigest()[:12]

    def store(self, root: Path) -> PictureStore:
        """Where its pictures are, or are to be, in this folder of data sets."""
        return PictureStore(root, self.frames.size, self.data)


def _frames(encoder: task.TaskEncoder.Config) -> FrameRequest:
    frames = encoder.frames()
    assert frames is not None
    return frames


def parts(config: Pretraining.Config) -> list[tuple[int, int]]:
    """(pictures, how many of these, the last ones, are held out) of each kind of actions."""
    ends = [round(config.pictures * sum(config.mixture[: k + 1])) for k in range(len(KINDS))]
    counts = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
    return [(count, int(count * config.held_out)) for count in counts]


def resolve(config: Pretraining.Config) -> Pretraining.Config:
    """Fill in what is chosen automatically, once. UserError where the device isn't here."""
    import torch

    from rrl.encoders.base import cpu_has_bf16
    from rrl.run import placement

    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("Pretraining.device is 'cuda', but torch finds no CUDA device; use 'auto' or 'cpu'")
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if device == "cuda" or cpu_has_bf16() else "fp32"
    chosen = {
        "device": device,
        "precision": precision,
        "threads": config.threads or placement.threads(),
        "workers": cores() if config.workers is None else config.workers,
    }
    return config.model_copy(update=chosen)
