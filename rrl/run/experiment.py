"""A run: environments, encoder, agent and evaluators in the one loop that trains every agent."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator

from rrl.agents.base import Agent, AgentSteps, Metrics
from rrl.config import ginfile
from rrl.demos import pictures
from rrl.demos.replay import DemoSet
from rrl.encoders.base import Encoder, Inference
from rrl.encoders.pixel import PixelEncoder
from rrl.envs.base import EnvFactory
from rrl.evaluators.base import Context, Evaluator
from rrl.machine.console import Display, duration
from rrl.machine.processes import keep_freed_memory
from rrl.registry import Component, UserError, build, mistake, register
from rrl.rollout.data import Policy, Rollout
from rrl.rollout.episodes import Collector
from rrl.rollout.steps import Stepper
from rrl.run import policies
from rrl.run.iteration import on_episodes, on_steps, summary
from rrl.store import checkpoint
from rrl.store.plots import learning_curve
from rrl.store.results import TAGS, read_json
from rrl.store.tracking import Log, Tracker


class BudgetOver(Exception):
    """The time that `--budget` gave is over; what came after the last checkpoint is dropped."""


CHECKPOINT = "checkpoint.safetensors"
REPLAY = "replay"
POLICY = "policy.safetensors"
BEST_POLICY = "best_policy.safetensors"
COUNTERS = ("iteration", "steps", "evaluated", "seconds")


@register
class Experiment(Component):
    """One training run: what a gin file describes."""

    kind: ClassVar[str] = "experiment"

    class Config(Component.Config):
        """The components of a run and how long it lasts."""

        env: EnvFactory.Config
        """The environment, such as @Adroit()."""
        encoder: Encoder.Config
        """What turns pictures into features, such as @ResNet(); @State() uses no pictures."""
        agent: Agent.Config
        """What acts and learns, such as @DAPG()."""
        demos: DemoSet.Config | None = None
        """Demonstrations to learn from: @DemoSet()."""
        evaluators: tuple[Evaluator.Config, ...] = ()
        """What is measured beside the training episodes, such as (@SuccessRate(), @Video())."""
        iterations: Annotated[int, Field(ge=0)]
        """Updates, each after the agent's episodes (paper: 200 or 300); for agents that learn at every step,
        rounds of `log_every` environment steps. 0: the warm start alone."""
        seed: Annotated[int, Field(ge=0)] = 0
        """Decides every random choice of the run (the authors' logs: 10, 11, 12)."""
        num_envs: Annotated[int, Field(gt=0)] = 20
        """Environments of one collection; with `groups`, fixes the batches that encoder and policy see."""
        groups: Annotated[int, Field(gt=0)] | None = None
        """Groups of environments that take turns: one is encoded while the others are simulated. None: 2, but
        1 without workers, and where torch encodes on a CPU (threads wait for each other on busy cores)."""
        eval_every: Annotated[int, Field(gt=0)] = 1
        """Evaluate after an update once this many environment steps have passed since the last evaluation."""
        log_every: Annotated[int, Field(gt=0)] = 1_000
        """Environment steps of an iteration (a row of metrics, a checkpoint) of agents that learn at every
        step, such as SAC; without effect for the others."""
        device: Literal["auto", "cpu", "cuda"] = "auto"
        """Where the networks run; auto: CUDA if there is one."""
        precision: Literal["auto", "fp32", "bf16", "int8"] = "fp32"
        """Of the encoder; auto: bf16 on CUDA and where the processor computes in it, else fp32. int8 needs
        OpenVINO and a frozen encoder; its ranges are taken from pictures of the demonstrations."""
        backend: Literal["auto", "torch", "openvino"] = "auto"
        """What computes the frozen encoder; auto: OpenVINO on a CPU where it is installed (the extra `cpu`:
        faster, float32 features equal to 1e-5), else torch."""
        threads: Annotated[int, Field(gt=0)] | None = None
        """CPU threads of torch and of OpenVINO (torch's can change rounding); None: one per core."""
        workers: Annotated[int, Field(ge=0)] | None = None
        """Processes that simulate and render (once `groups` is chosen, they change no bit); None: one per
        core; 0: in this process."""

        @model_validator(mode="after")
        def _fits_together(self) -> Experiment.Config:
            env: EnvFactory = build(self.env)
            if not env.has_state and self.encoder.frames() is None:
                raise mistake(
                    "encoder",
                    "this policy would see nothing: no pictures and no state",
                    f"set `{self.env.component.__name__}.state = 'task'`, or take an encoder of pictures",
                )
            if self.encoder.frames() is None and env.blind_state and not getattr(self.encoder, "blind", True):
                raise mistake(
                    "encoder",
                    f"this policy would be blind: {self.encoder.component.__name__} sees no pictures and the "
                    "state holds no object",
                    "for a blind control add `State.blind = True`; for the oracle `Adroit.state = 'task'`",
                )
            if self.precision == "int8" and issubclass(self.encoder.component, PixelEncoder):
                raise mistake(
                    "precision",
                    f"{self.encoder.component.__name__} learns, which int8 can't",
                    "set `Experiment.precision = 'auto'`: bf16 where the processor computes in it, else fp32",
                )
            agent = self.agent.component
            assert issubclass(agent, Agent)
            misfit = self.agent.misfit(self.encoder)
            if misfit is not None:
                raise mistake("encoder", *misfit)
            kinds = [(e.component.__name__, e.when) for e in self.evaluators]
            twice = next((kind for kind in kinds if kinds.count(kind) > 1), None)
            if twice is not None:
                raise mistake(
                    "evaluators",
                    f"{twice[0]} is there twice with when = {twice[1]!r}: their numbers would share names",
                    "remove one, or let one run at another time",
                )
            if agent.demos == "none" and self.demos is not None:
                raise mistake(
                    "demos",
                    f"{agent.__name__} takes no demonstrations, but Experiment.demos is set",
                    "set `Experiment.demos = None`, or take an agent that does, such as @FERM() or @DAPG() "
                    "(`DAPG.lam_0 = 0`: cloning, then NPG)",
                )
            if agent.demos == "required" and self.demos is None:
                raise mistake(
                    "agent",
                    f"{agent.__name__} learns from demonstrations, but Experiment.demos is not set",
                    "add `Experiment.demos = @DemoSet()`",
                )
            if agent.demo_rewards and self.demos is not None and self.demos.replay == "states":
                raise mistake(
                    "demos",
                    f"{agent.__name__} learns from the demonstrations' rewards; replayed states have none",
                    "set `DemoSet.replay = 'actions'`",
                )
            if not agent.needs_rollouts and self.iterations > 0:
                raise mistake(
                    "iterations",
                    f"{agent.__name__} learns from demonstrations only, but Experiment.iterations is {self.iterations}",
                    "set `Experiment.iterations = 0`",
                )
            counting = [e.component.__name__ for e in self.evaluators if getattr(e.component, "needs_success", False)]
            if counting and not env.flags:
                raise mistake(
                    "evaluators",
                    f"{counting[0]} counts successes, but {env.name} has no success test, only a return",
                    "take @EpisodeReturn()",
                )
            blind = any(e.component.__name__ == "BlindControl" for e in self.evaluators)
            if blind and (self.demos is None or not env.blind_state or not env.has_state):
                raise mistake(
                    "evaluators",
                    "BlindControl clones demonstrations from joint angles alone: it needs Experiment.demos "
                    "and a state without objects",
                    "add `Experiment.demos = @DemoSet()` and `Adroit.state = 'joints'`, or remove it",
                )
            return self

    def __init__(self, config: Config) -> None:
        self.config = config
        self.env: EnvFactory = build(config.env)
        self.frames = config.encoder.frames()
        self.device = torch.device(config.device)
        self.demos: DemoSet | None = build(config.demos, env=self.env) if config.demos else None
        self.encoder: Encoder = build(config.encoder, cameras=len(self.env.cameras))
        self.inference = Inference(device=self.device)

    # --- the loop ------------------------------------------------------------------------------------

    def run(
        self, folder: Path, tracker: Tracker, display: Display, budget: float | None = None
    ) -> Literal["finished", "budget"]:
        """Train until `iterations` or until `budget` seconds are over, from the folder's checkpoint if it
        has one. The folder gets metrics, checkpoint, policies, plot and what the evaluators make."""
        cfg = self.config
        began = time.monotonic()
        assert cfg.workers is not None
        self._settle()
        tensors, values = self._last_checkpoint(folder)
        log = Log(folder / "metrics.jsonl", values.get("rows", 0))
        tracker.metrics(log.rows)
        if values.get("finished") and values["iteration"] >= cfg.iterations:
            display.line(f"this run is finished: {values['iteration']} updates, {values['steps']:,} steps")
            self._artifacts(folder, log, tracker)
            return "finished"
        with ExitStack() as stack:
            display.line(placement(cfg))
            display.phase("starting the simulators", 0)
            envs = self.env.make(cfg.num_envs, self.frames, cfg.workers)
            stack.callback(envs.close)
            collector = Collector(envs, cfg.groups or 1)
            self.inference = self.make_inference(collector, display)
            agent = self.make_agent(self.encoder, collector, cfg.seed)
            armed = False

            def advance(count: int) -> None:
                display.advance(count)
                if armed and budget is not None and time.monotonic() - began > budget:
                    raise BudgetOver

            context = self._context(collector, folder, display, advance)
            self._tag(folder, tracker, envs.renderer() if self.frames else "none")
            demos = self._replay(collector, agent, self.encoder, display)
            stepper = Stepper(envs, agent.stack, cfg.seed) if isinstance(agent.wants, AgentSteps) else None

            iteration, steps, evaluated, trained = (values.get(name, 0) for name in COUNTERS)
            best, score = values.get("best"), "eval/return" if stepper else "train/return"

            def commit(finished: bool = False) -> None:  # all is on disk before MLflow hears of it
                progress = dict(zip(COUNTERS, (iteration, steps, evaluated, trained), strict=True))
                progress |= {"best": best, "rows": len(log.rows), "finished": finished}
                self._save(folder, agent, stepper, progress)
                self._save_policy(folder / POLICY, agent, collector, iteration)
                tracker.metrics(log.rows)

            def keep_best(metrics: Metrics) -> None:  # `score` is of the very policy that is kept
                nonlocal best
                if score in metrics and (best is None or metrics[score] > best):
                    best = metrics[score]
                    self._save_policy(folder / BEST_POLICY, agent, collector, iteration)

            if tensors:
                self._restore(folder, agent, stepper, demos, tensors, values)
                display.line(f"resumed after {iteration} updates ({steps:,} steps)")
            else:
                metrics = self._warm_start(agent, demos, display)
                metrics |= self._evaluate("always", agent, context(0), display)
                keep_best(metrics)
                log.append(0, metrics)
                commit()

            armed = True
            try:
                while iteration < cfg.iterations:
                    if budget is not None and trained / max(iteration, 1) > budget - time.monotonic() + began:
                        raise BudgetOver  # another update of the usual length would not fit
                    start = time.monotonic()
                    name = f"update {iteration + 1}/{cfg.iterations}"
                    if stepper is not None:
                        display.phase(name, cfg.log_every)
                        metrics, made = on_steps(agent, stepper, cfg.log_every, advance)
                    else:
                        display.phase(f"{name}: sampling", agent.wants.count * self.env.horizon)
                        learning = partial(display.phase, f"{name}: learning", 0)
                        metrics, made = on_episodes(agent, collector, cfg.seed, iteration, advance, keep_best, learning)
                    iteration, steps = iteration + 1, steps + made
                    if steps - evaluated >= cfg.eval_every or iteration == cfg.iterations:
                        evaluated = steps
                        with stepper.paused() if stepper else nullcontext():
                            metrics |= self._evaluate("always", agent, context(iteration), display)
                        keep_best(metrics)  # of episodes: a second time, without effect
                    trained += time.monotonic() - start
                    metrics |= {"iteration": iteration, "time/iteration": time.monotonic() - start}
                    metrics |= summary(log.rows, steps, metrics, "success" if self.env.flags else "return")
                    display.line(self._line(metrics, iteration, steps, trained))
                    log.append(steps, metrics)
                    commit()
                with stepper.paused() if stepper else nullcontext():
                    final = self._evaluate("end", agent, context(iteration), display)
            except BudgetOver:
                self._artifacts(folder, log, tracker)
                return "budget"
            log.append(steps, final)
            commit(finished=True)
            self._artifacts(folder, log, tracker)
        return "finished"

    # --- its parts -----------------------------------------------------------------------------------

    def _settle(self) -> None:
        """This process's share of the machine."""
        assert self.config.threads is not None
        torch.set_num_threads(self.config.threads)
        keep_freed_memory()

    def make_agent(self, encoder: Encoder, collector: Collector, seed: int) -> Agent:
        """The run's agent on this encoder, for the collector's environments."""
        agent: Agent = build(
            self.config.agent,
            encoder=encoder,
            state_dim=collector.envs.state_dim,
            action_dim=collector.envs.action_dim,
            seed=seed,
            inference=self.inference,
            slots=collector.envs.num_envs,
        )
        return agent

    def make_inference(self, collector: Collector, display: Display) -> Inference:
        """How this run's encoder computes; int8 takes its ranges from the collector's environments."""
        cfg, envs, frames = self.config, collector.envs, None
        assert cfg.threads is not None
        assert cfg.precision != "auto"
        assert cfg.backend != "auto"
        if cfg.precision == "int8" and self.frames is not None:
            display.phase("calibrating int8", 0)
            frames = pictures.pictures(envs, self.demos.demos if self.demos else None, cfg.seed)
        return Inference(
            backend=cfg.backend,
            precision=cfg.precision,
            device=self.device,
            threads=cfg.threads,
            batch=-(-envs.num_envs // collector.groups) * len(self.env.cameras),
            calibration=frames,
        )

    def _context(
        self, collector: Collector, folder: Path, display: Display, progress: Callable[[int], None]
    ) -> Callable[[int], Context]:
        def warm_started(config: Encoder.Config, other: Collector, count: int) -> list[Policy]:
            encoder: Encoder = build(config, cameras=len(self.env.cameras))
            agents = [self.make_agent(encoder, other, self.config.seed + i) for i in range(count)]
            demos = self._replay(other, agents[0], encoder, display)
            display.phase(f"evaluating: {count} clones", 0)
            for agent in agents:
                agent.warm_start(demos, display)
            return list(agents)

        return lambda iteration: Context(
            collector=collector,
            frames=self.frames,
            encoder=self.encoder_name(),
            seed=self.config.seed,
            folder=folder,
            iteration=iteration,
            say=display.line,
            progress=progress,
            warm_started=warm_started,
        )

    def _replay(self, collector: Collector, agent: Agent, encoder: Encoder, display: Display) -> Rollout | None:
        """The demonstrations as this agent observes them; features of pictures are cached on disk."""
        if self.demos is None:
            return None
        for text in self.demos.mismatches():
            display.line(f"note: {text}")
        steps = int(self.demos.demos.lengths.sum())
        display.phase(f"replaying {len(self.demos.demos)} demonstrations", steps)
        key = None
        if collector.envs.frames is not None:
            key = {
                **{f"encoder.{k}": v for k, v in ginfile.flatten(encoder.config).items()},
                **encoder.facts(),
                "encoder": type(encoder).__name__,
                "frames": repr(collector.envs.frames),
                **self.inference.facts(),
                "device": str(self.device),
                "num_envs": f"{self.config.num_envs}/{self.config.groups}",
                "threads": str(self.config.threads),
                "renderer": collector.envs.renderer(),
                "torch": torch.__version__,
            }
        return self.demos.replay(collector, agent, key, display.advance)

    def _warm_start(self, agent: Agent, demos: Rollout | None, display: Display) -> Metrics:
        display.phase("warm start", 0)
        metrics = agent.warm_start(demos, display)
        if metrics:
            display.line("warm start: " + ", ".join(f"{k} {v:.4g}" for k, v in metrics.items()))
        return metrics

    def _evaluate(self, when: str, agent: Agent, context: Context, display: Display) -> Metrics:
        found: Metrics = {}
        space = {"always": "eval", "end": "final"}[when]
        for config in self.config.evaluators:
            if config.when == when:
                display.phase(f"evaluating: {config.component.__name__}", 0)
                evaluator: Evaluator = build(config)
                for name, value in evaluator.run(agent, self.env, context):
                    found[f"{space}/{name}"] = value
        return found

    def _line(self, metrics: Metrics, iteration: int, steps: int, trained: float) -> str:
        left = (self.config.iterations - iteration) * trained / iteration
        parts = [f"update {iteration}/{self.config.iterations}", f"steps {steps:,}"]
        shown = {"train/success": "train/success {:.1f} %", "train/return": "return {:.1f}"}
        shown |= {
            "policy/kl": "KL {:.4f}",
            "sac/alpha": "temperature {:.3f}",
            "encoder/loss": "encoder loss {:.3f}",
        }
        parts += [text.format(metrics[name]) for name, text in shown.items() if name in metrics]
        spent = {name: metrics[f"time/{name}"] for name in ("simulate", "render", "encode", "act")}
        learning = f"learn {metrics['time/update']:.0f}, " if "time/update" in metrics else ""
        parts.append(
            f"{metrics['time/steps_per_second']:.0f} steps/s "
            f"({learning}encode {spent['encode']:.0f}, act {spent['act']:.0f}, "
            f"waiting to simulate {spent['simulate']:.0f} and render {spent['render']:.0f} s)"
        )
        parts.append(f"updates left: {duration(left)}")
        return "  ".join(parts)

    def _save(self, folder: Path, agent: Agent, stepper: Stepper | None, progress: dict[str, Any]) -> None:
        """The checkpoint: what decides the future of agent, running episodes and replay memory."""
        tensors, values = agent.snapshot()
        progress |= {"agent": values, "identity": self.identity()}
        if stepper is not None:
            arrays, values = stepper.snapshot()
            packed, layout = checkpoint.pack({f"stepper.{name}": array for name, array in arrays.items()})
            tensors |= packed
            progress["stepper"] = {"layout": layout, "values": values}
        if agent.replay is not None:
            progress["replay"] = agent.replay.commit(folder / REPLAY)
        checkpoint.save_file(folder / CHECKPOINT, tensors, progress)
        if agent.replay is not None:
            agent.replay.tidy(folder / REPLAY)

    def _restore(
        self,
        folder: Path,
        agent: Agent,
        stepper: Stepper | None,
        demos: Rollout | None,
        tensors: dict[str, torch.Tensor],
        values: dict[str, Any],
    ) -> None:
        """Undo of `_save`."""
        if demos is not None:
            agent.remember(demos)
        agent.restore(tensors, values["agent"])
        if stepper is not None:
            arrays = checkpoint.unpack(tensors, values["stepper"]["layout"])
            arrays = {name.removeprefix("stepper."): array for name, array in arrays.items()}
            stepper.restore(arrays, values["stepper"]["values"])
        if agent.replay is not None:
            agent.replay.load(folder / REPLAY, values["replay"])

    def _last_checkpoint(self, folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        path = folder / CHECKPOINT
        if not path.exists():
            return {}, {}
        try:
            tensors, values = checkpoint.load_file(path)
        except UserError as error:
            raise UserError(
                f"{error}\n{folder / BEST_POLICY} may still hold the best policy; without {path.name} "
                "the run would begin again"
            ) from error
        began, now = values["identity"], self.identity()
        changed = [f"{k} {began.get(k)} (now {v})" for k, v in now.items() if began.get(k) != v]
        if changed:
            raise UserError(f"this run began with {', '.join(changed)}: put the original files back")
        return tensors, values

    def finished(self, folder: Path) -> bool:
        """Has the run in this folder nothing left to do?"""
        values = self._last_checkpoint(folder)[1]
        return bool(values.get("finished")) and values["iteration"] >= self.config.iterations

    def identity(self) -> dict[str, str]:
        """What a run can't change on the way: checksums of encoder weights and demonstrations."""
        demos = self.demos.demos.checksum() if self.demos is not None else "none"
        return {**self.encoder.facts(), "demos": demos}

    def _save_policy(self, path: Path, agent: Agent, collector: Collector, iteration: int) -> None:
        envs = collector.envs
        facts = {"state_dim": envs.state_dim, "action_dim": envs.action_dim, "iteration": iteration}
        policies.save(path, agent, self.config, {**facts, **self.encoder.facts()})

    def title(self) -> str:
        """One line that says what a curve shows and what it can't be compared with."""
        facts = self.env.facts()
        text = f"{self.env.name}  {self.encoder_name()}  {self.config.agent.component.__name__}"
        for name in ("protocol", "reward", "look"):
            if name in facts and (name != "look" or self.frames is not None):
                text += f"  {name} {facts[name]}"
        return text + f"  seed {self.config.seed}"

    def encoder_name(self) -> str:
        """The encoder's class name, with a warning where it deserves one."""
        return self.encoder.told

    def tags(self, renderer: str) -> dict[str, str]:
        """Facts that a result can't be judged without."""
        tags = {
            **self.env.facts(),
            **{f"encoder.{k}": v for k, v in (self.encoder.facts() | self.inference.facts()).items()},
            "encoder": self.encoder_name(),
            "encoder.trained": str(self.encoder.trained).lower(),
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else platform.machine(),
            "renderer": renderer,
            "iterations": str(self.config.iterations),
            "git_commit": _git_commit(),
            "rrl": version("rrl"),
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        if self.demos is not None:
            tags["demos"] = self.demos.name
            tags["demos.checksum"] = self.demos.demos.checksum()
            tags["demos.origin"] = self.demos.demos.origin
            tags["demos.episodes"] = str(len(self.demos.demos))
            tags["demos.mismatches"] = "; ".join(self.demos.mismatches()) or "none"
        return tags

    def _tag(self, folder: Path, tracker: Tracker, renderer: str) -> None:
        """Tags go to MLflow and, for reports, beside the run."""
        tags = self.tags(renderer)
        before = read_json(folder / TAGS).get("git_commit", tags["git_commit"])
        if before.rpartition("then ")[2] != tags["git_commit"]:
            tags["git_commit"] = f"{before}, then {tags['git_commit']}"
        (folder / TAGS).write_text(json.dumps(tags, indent=2) + "\n")
        tracker.tags(tags)

    def _artifacts(self, folder: Path, log: Log, tracker: Tracker) -> None:
        learning_curve(log.rows, self.title(), folder / "learning_curve.png")
        for name in ("learning_curve.png", "metrics.jsonl", CHECKPOINT, BEST_POLICY, POLICY):
            if (folder / name).exists():
                tracker.artifact(folder / name)
        for path in sorted((folder / "videos").glob("*")):
            tracker.artifact(path, "videos")


def placement(config: Experiment.Config) -> str:
    """What computes where, of a resolved configuration, in words."""
    text = f"{config.workers or 'no'} worker process{'' if config.workers == 1 else 'es'}"
    text += f", {_counted(config.num_envs, 'environment')}"
    text += f" in {config.groups} groups" if config.groups != 1 else ""
    pictures = config.encoder.frames() is not None
    text += f"; encoder by {config.backend} in {config.precision}" if pictures else "; agent"
    return f"{text} on {config.device}; {_counted(config.threads or 0, 'thread')}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _git_commit() -> str:
    """Of this project's checkout; an installed package is told by its version."""
    if not (Path(__file__).parents[2] / ".git").exists():
        return "unknown"
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip() or "unknown"
