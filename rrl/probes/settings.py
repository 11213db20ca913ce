"""What a probe compares, and how: the schema of its gin file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from rrl.agents.settings.base import Agent
from rrl.demos import DemoSet
from rrl.encoders.settings.base import Encoder
from rrl.envs.base import EnvFactory
from rrl.machine.cores import MOST_THREADS
from rrl.registry import Component, Count, CountOrZero, Mistake, Seed, Width, mistakes, register
from rrl.run.experiment import Experiment, Slots, known_backend


@register
class Probe(Component):
    """A comparison of encoders on a task's demonstrations: probes, clones, visual changes, cost. `rrl probe FILE`."""

    kind: ClassVar[str] = "probe"

    class Config(Component.Config):
        """The task, the encoders, and what is measured of each."""

        env: EnvFactory.Config
        """The task, such as @Adroit()."""
        demos: DemoSet.Config
        """Its demonstrations: what the probes are fitted to and what is cloned."""
        encoders: Annotated[tuple[Encoder.Config, ...], Field(min_length=1)]
        """What is compared, such as (@MobileNetV2(), @untrained/ResNet()): frozen encoders, plugins' too."""
        agent: Agent.Config
        """What clones the demonstrations, such as @BC(): an agent that needs them. Its warm start is all it learns."""
        controls: bool = True
        """Also a blind policy (the robot's own state alone) and one that gets the state with the task's objects."""
        folds: Annotated[int, Field(ge=2, le=1_000)] = 5
        """Parts into which the episodes of the demonstrations are split: each is predicted by probes that are fitted to
        the others."""
        states: Count = 2_000
        """Recorded states, evenly spread over the demonstrations, that probes are fitted to and tried on: neighbours
        tell next to nothing new."""
        mlp_hidden: tuple[Width, ...] = (256, 256)
        """Units in each hidden ReLU layer of the nonlinear probe; (): only the linear one."""
        clones: Annotated[int, Field(ge=0, le=1_000)] = 3
        """Policies cloned on each encoder, with seeds of their own; 0: nothing is cloned."""
        episodes: Annotated[int, Field(gt=0, le=100_000)] = 100
        """Evaluation episodes on each encoder, of the mean and of sampled actions each; the clones share them."""
        changes: tuple[str, ...] | None = None
        """Visual changes under which features are compared: other looks ('look default') and kinds of changed scenes,
        as far as the environment has them. None: all of them; (): none."""
        shown: CountOrZero = 500
        """Recorded states, evenly spread likewise, that are shown under each change; 0: none."""
        seed: Seed = 0
        """Decides the folds, the probes' first weights, the clones and their episodes."""
        num_envs: Slots = 20
        """Environments of one collection; fixes the batches that encoder and policy see."""
        device: Literal["auto", "cpu", "cuda"] = "auto"
        """As `Experiment.device`."""
        precision: Literal["auto", "fp32", "bf16", "int8"] = "fp32"
        """Of the encoders, as `Experiment.precision`."""
        backend: str = "auto"
        """What computes them, as `Experiment.backend`."""
        threads: Annotated[int, Field(gt=0, le=MOST_THREADS)] | None = None
        """CPU threads, as `Experiment.threads`."""
        workers: Annotated[int, Field(ge=0, le=1_024)] | None = None
        """Processes that simulate and render, as `Experiment.workers`."""

        def run_of(self, encoder: Encoder.Config, env: EnvFactory.Config) -> Experiment.Config:
            """The run whose parts are measured. Not validated: `misfits` tells what keeps it from working."""
            return Experiment.Config.model_construct(
                env=env,
                encoder=encoder,
                agent=self.agent,
                demos=self.demos,
                iterations=0,
                **{name: getattr(self, name) for name in SHARED},
            )

        @field_validator("backend")
        @classmethod
        def _is_registered(cls, backend: str) -> str:
            return known_backend(backend, "Probe")

        @model_validator(mode="after")
        def _fits_together(self) -> Probe.Config:
            misfits = list(dict.fromkeys(self._misfits()))
            if misfits:
                raise mistakes(misfits)
            return self

        def _misfits(self) -> Iterator[Mistake]:
            if self.clones > self.episodes:
                message = f"Probe.clones is {self.clones}, but they share {self.episodes} episodes: one each, at least"
                yield Mistake("clones", message, f"set `Probe.episodes = {self.clones}` or more")
            for encoder in self.encoders:
                for field, message, hint in self.run_of(encoder, self.env).misfits():
                    yield Mistake("encoders" if field == "encoder" else field, message, hint)

    config: Config


SHARED = ("seed", "num_envs", "device", "precision", "backend", "threads", "workers")
"""Settings that a probe and a run have by the same names."""
