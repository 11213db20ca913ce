"""A run's schema, and its parts made from it."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from rrl.agents.settings import base as agents
from rrl.config import ginfile
from rrl.demos import DemoSet, pictures
from rrl.demos.replay import NoPolicy
from rrl.encoders.settings import base as encoders
from rrl.envs.base import EnvFactory
from rrl.envs.vector import WorkerVectorEnv
from rrl.evaluators.base import Evaluator
from rrl.machine.cores import MOST_THREADS
from rrl.machine.progress import Progress
from rrl.registry import Component, Mistake, Seed, UserError, build, code_of, mistake, mistakes, register
from rrl.rollout.data import Obs, Rollout
from rrl.rollout.episodes import Collector
from rrl.run import provenance
from rrl.store.shipped import find as find_policy
from rrl.trackers.base import Tracker

if TYPE_CHECKING:  # torch: whoever only reads a configuration needs none
    import torch

    from rrl.agents.base import Agent
    from rrl.encoders.base import Encoder, Inference

ROOMS = ("rrl.envs", "rrl.rollout", "rrl.encoders", "rrl.demos")
"""Whose code makes features: a checkout's changes between two versions."""

Slots = Annotated[int, Field(gt=0, le=4_096)]
"""Of environments: each is a simulator of its own."""


class Watching(NoPolicy):
    """Stands where a replay needs a policy: observes demonstrations as an agent's warm start takes them."""

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent.action_dim)
        self.agent = agent

    def observe(self, obs: Obs) -> NDArray[Any]:
        """As `Agent.observe_demo`."""
        return self.agent.observe_demo(obs)

    def column(self, i: int) -> str:
        """As `Agent.demo_column`."""
        return self.agent.demo_column(i)


@register
class Experiment(Component):
    """One training run: what a gin file describes."""

    kind: ClassVar[str] = "experiment"

    class Config(Component.Config):
        """The components of a run and how long it lasts."""

        later: ClassVar[frozenset[str]] = frozenset({"trackers", "system_metrics"})
        env: EnvFactory.Config
        """The environment, such as @Adroit()."""
        encoder: encoders.Encoder.Config
        """What turns pictures into features, such as @ResNet(); @State() uses no pictures."""
        agent: agents.Agent.Config
        """What acts and learns, such as @DAPG()."""
        demos: DemoSet.Config | None = None
        """Demonstrations to learn from: @DemoSet()."""
        evaluators: Annotated[tuple[Evaluator.Config, ...], Field(max_length=100)] = ()
        """What is measured beside the training episodes, such as (@SuccessRate(), @Video())."""
        iterations: Annotated[int, Field(ge=0, le=10**9)]
        """Updates, each after the agent's episodes (paper: 200 or 300); for agents that learn at every step,
        rounds of `log_every` environment steps. 0: the warm start alone."""
        seed: Seed = 0
        """Decides every random choice of the run (the authors' logs: 10, 11, 12)."""
        num_envs: Slots = 20
        """Environments of one collection; with `groups`, fixes the batches that encoder and policy see."""
        groups: Slots | None = None
        """Groups of environments that take turns: one is encoded while the others are simulated. None: 2, but
        1 without workers, and where torch encodes on a CPU (threads wait for each other on busy cores)."""
        eval_every: Annotated[int, Field(gt=0, le=10**18)] = 1
        """Evaluate after an update once this many environment steps have passed since the last evaluation."""
        log_every: Annotated[int, Field(gt=0, le=10**9)] = 1_000
        """Environment steps of an iteration (a row of metrics, a checkpoint) of agents that want steps and not
        episodes, such as SAC: as many updates as reach it, at least one; without effect for the others."""
        device: Literal["auto", "cpu", "cuda"] = "auto"
        """Where the networks run; auto: CUDA if there is one."""
        precision: Literal["auto", "fp32", "bf16", "int8"] = "fp32"
        """Of the encoder; auto: bf16 on CUDA and where the processor computes in it, else fp32. int8 needs
        OpenVINO and a frozen encoder; its ranges are taken from pictures of the demonstrations."""
        backend: str = "auto"
        """What computes the frozen encoder: 'torch', 'openvino', or another one that a plugin registers; auto: OpenVINO
        on a CPU where it is installed (the extra `cpu`: faster, float32 features equal to 1e-5), else torch."""
        threads: Annotated[int, Field(gt=0, le=MOST_THREADS)] | None = None
        """CPU threads of torch and of OpenVINO (torch's can change rounding); None: OMP_NUM_THREADS, or where that is
        not set one per core."""
        workers: Annotated[int, Field(ge=0, le=1_024)] | None = None
        """Processes that simulate and render (once `groups` is chosen, they change no bit); None: one per
        core; 0: in this process."""
        trackers: Annotated[tuple[Tracker.Config, ...], Field(max_length=100)] = ()
        """Where the run is shown beside MLflow, such as (@TensorBoard(), @WandB())."""
        system_metrics: bool = False
        """Also log how busy the machine is, `system/...`: processor since the last row, memory now."""

        @field_validator("backend")
        @classmethod
        def _is_registered(cls, backend: str) -> str:
            return known_backend(backend, "Experiment")

        @model_validator(mode="after")
        def _fits_together(self) -> Experiment.Config:
            """Each part says what keeps it from working with the others; nothing here knows one by name."""
            misfits = list(self.misfits())
            if misfits:
                raise mistakes(misfits)
            return self

        def misfits(self) -> Iterator[Mistake]:
            """What keeps the parts from working together."""
            for part in (self.env, self.encoder, self.agent, self.demos, *self.evaluators, *self.trackers):
                if part is not None:
                    yield from part.misfit(self)

    def __init__(self, config: Config) -> None:
        """UserError where weights or demonstrations are missing, or the simulator refuses its settings."""
        import torch

        self.config = config
        self.env: EnvFactory = build(config.env)
        self.frames = config.encoder.frames()
        self.env.probe(self.frames)
        self.device = torch.device(config.device)
        self.demos: DemoSet | None = build(config.demos, env=self.env) if config.demos else None
        self.encoder: Encoder = build(config.encoder, cameras=len(self.env.cameras))
        if self.encoder.learns and not self.encoder.trainable:
            raise UserError(
                f"the parameters of {type(self.encoder).__name__} take gradients, but nothing would train them: a "
                "frozen encoder calls `self.requires_grad_(False)` at the end of its __init__"
            )

    def make_envs(self) -> WorkerVectorEnv:
        """The run's environments, of a resolved configuration."""
        assert self.config.workers is not None
        return WorkerVectorEnv(self.env, self.config.num_envs, self.frames, self.config.workers)

    def make_inference(self, collector: Collector, progress: Progress) -> Inference:
        """How this run's encoder computes; int8 takes its ranges from the collector's environments."""
        from rrl.encoders.base import Inference

        cfg, envs, calibration = self.config, collector.envs, None
        assert cfg.threads is not None
        assert cfg.precision != "auto"
        assert cfg.backend != "auto"
        if cfg.precision == "int8" and self.frames is not None:
            progress.phase("calibrating int8", 0)
            calibration = pictures.pictures(envs, self.demos.demos if self.demos else None, cfg.seed)
        return Inference(
            backend=cfg.backend,
            precision=cfg.precision,
            device=self.device,
            threads=cfg.threads,
            batch=-(-envs.num_envs // collector.groups) * len(self.env.cameras),
            calibration=calibration,
        )

    def make_agent(self, encoder: Encoder, envs: WorkerVectorEnv, inference: Inference, seed: int) -> Agent:
        """The run's agent on this encoder, for these environments."""
        agent: Agent = build(
            self.config.agent,
            encoder=encoder,
            state_dim=envs.state_dim,
            action_dim=envs.action_dim,
            seed=seed,
            inference=inference,
            slots=envs.num_envs,
            **self.env.for_critics(),
        )
        return agent

    def replay(
        self, collector: Collector, agent: Agent, encoder: Encoder, inference: Inference, progress: Progress
    ) -> Rollout | None:
        """The demonstrations as this agent observes them; features of pictures are cached on disk."""
        if self.demos is None:
            return None
        steps = int(self.demos.demos.lengths.sum())
        progress.phase(f"replaying {len(self.demos.demos)} demonstrations", steps)
        key = None if collector.envs.frames is None else self._key(collector, agent, encoder, inference)
        return self.demos.replay(collector, Watching(agent), key, progress.advance, progress.line)

    def _key(self, collector: Collector, agent: Agent, encoder: Encoder, inference: Inference) -> dict[str, str] | None:
        """All that decides what the agent observes, as `DemoSet.replay` takes it; None where it can't be told."""
        from rrl.agents.base import Agent
        from rrl.encoders import backends

        backend, kind = backends.get(inference.backend), type(agent)
        observe = kind.observe if kind.observe_demo is Agent.observe_demo else kind.observe_demo
        codes = provenance.codes([*provenance.classes(encoder, self.env), kind, type(backend)])
        if "unknown" in codes.values():
            return None
        settings = {"encoder": ginfile.flatten(encoder.config), "env": ginfile.flatten(self.env.config)}
        return {
            **{f"{part}.{name}": value for part, values in settings.items() for name, value in values.items()},
            **encoder.identity(),
            **codes,
            **{part: code_of(part) for part in (*ROOMS, agent.encodes)},
            **provenance.libraries(encoder, self.env),
            "encoder": type(encoder).__name__,
            "environment": type(self.env).__name__,
            "observe": f"{observe.__module__}.{observe.__qualname__} {code_of(observe.__module__)}",
            "frames": repr(collector.envs.frames),
            "views": str(agent.views),
            **backends.facts(inference),
            "device": f"{self.device} {_processor(self.device)}",
            "num_envs": f"{self.config.num_envs}/{self.config.groups}",
            "threads": str(self.config.threads),
            "renderer": collector.envs.renderer(),
        }

    @cached_property
    def identity(self) -> dict[str, str]:
        """What a run can't change on the way: checksums of encoder weights, demonstrations, teacher and plugins' code.
        Made once: files that change while a run goes on aren't what it was made with."""
        facts = self.encoder_facts | provenance.codes(provenance.classes(self.encoder, self.env))
        facts |= provenance.environment(self.env)
        if (teacher := self.config.agent.teacher_file()) is not None:
            facts["teacher"] = hashlib.sha256(find_policy(teacher).read_bytes()).hexdigest()[:12]
        if self.demos is None:
            return facts | {"demos": "none"}
        return facts | {"demos": self.demos.demos.checksum(), "demos in full": self.demos.demos.contents()}

    @cached_property
    def encoder_facts(self) -> dict[str, str]:
        """`Encoder.identity` of the run's encoder: a checksum of all weights takes a while."""
        return self.encoder.identity()

    @cached_property
    def made_with(self) -> dict[str, str]:
        """What a policy file remembers of its making and need not find again."""
        return self.versions | provenance.environment(self.env)

    @cached_property
    def versions(self) -> dict[str, str]:
        """Of what may compute other bits: libraries, and the code of plugins."""
        return provenance.versions(self.encoder, self.env, self.config.agent.component)


def known_backend(backend: str, owner: str) -> str:
    """For validators of `backend`: the name of a registered one, or 'auto'."""
    if backend == "auto":
        return backend
    from rrl.encoders import backends

    if backend not in (known := ["auto", *backends.names()]):
        message = f"{owner}.backend must be {', '.join(map(repr, known))}; got {backend!r}"
        close = difflib.get_close_matches(backend, known, 1)
        hint = f"did you mean {close[0]!r}?" if close else "a plugin's backend needs the plugin's package"
        raise mistake("backend", message, hint)
    return backend


def _processor(device: torch.device) -> str:
    """What kind of processor rounds: another kind, other bits."""
    import torch

    from rrl.encoders.base import cpu_has_bf16

    if device.type == "cuda":
        return torch.cuda.get_device_name()
    return torch.backends.cpu.get_cpu_capability() + (" bf16" if cpu_has_bf16() else "")
