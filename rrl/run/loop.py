"""The one loop that trains every agent: collect, update, evaluate, write down."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from rrl.agents.base import Agent, AgentSteps, Episodes, Metrics
from rrl.encoders.base import Encoder
from rrl.evaluators.base import Context, Evaluator
from rrl.machine.console import COLUMNS, Display, duration, wrapped
from rrl.machine.processes import keep_freed_memory
from rrl.machine.signals import Stopping
from rrl.machine.usage import Usage
from rrl.registry import MachineError, UserError, build
from rrl.rollout.data import Policy
from rrl.rollout.episodes import Collector
from rrl.rollout.steps import Stepper
from rrl.run import facts, placement, policies, saving, soundness
from rrl.run.experiment import Experiment
from rrl.run.iteration import on_episodes, on_steps, summary
from rrl.run.ledger import Ledger
from rrl.run.pace import Pace
from rrl.run.saving import BEST_POLICY, POLICY, Checkpoint
from rrl.run.teaching import teach
from rrl.statistics import wilson
from rrl.store.plots import learning_curve
from rrl.store.recorded import shown
from rrl.store.results import project
from rrl.store.tracking import Log, Tracking

Ended = Literal["finished", "budget"]

WORTH = 60.0  # seconds of work that a first Ctrl-C doesn't throw away where no update is lost

SPACES = {"always": "eval", "end": "final"}
"""Under which name evaluators log, by when they run."""


class BudgetOver(Exception):
    """The time that `--budget` gave is over; what came after the last checkpoint is dropped."""


def train(
    experiment: Experiment,
    folder: Path,
    tracker: Tracking,
    display: Display,
    budget: float | None = None,
    stopping: Stopping | None = None,
) -> Ended:
    """Train until `iterations` or until `budget` seconds are over, from the folder's checkpoint if it has one.

    The folder gets metrics, checkpoint, policies, plot and what the evaluators make. `stopping` hears a Ctrl-C, which
    waits for the update in progress.
    """
    stopping = stopping or Stopping()
    config, deadline = experiment.config, None if budget is None else time.monotonic() + budget
    assert config.threads is not None
    torch.set_num_threads(config.threads)
    keep_freed_memory()
    start = saving.last(folder, experiment.identity)
    log = Log(folder / "metrics.jsonl", start.values.get("rows", 0))
    tracker.metrics(log.rows)
    ended: Ended = "finished"
    if start.finished(config.iterations):
        display.line(f"this run is finished: {start.values['iteration']} updates, {start.values['steps']:,} steps")
    else:
        display.line(placement.in_words(config))
        display.phase("starting the simulators", 0)
        envs = experiment.make_envs()
        try:
            collector = Collector(envs, config.groups or 1)
            loop = Loop(experiment, collector, folder, tracker, log, display, deadline, stopping)
            stopping.waiting = loop.pressed
            loop.begin(start)
            loop.run()
        except BudgetOver:
            ended = "budget"
            if config.iterations and not loop.iteration:
                display.line("no update fitted in: the budget counts what comes before training, and never cuts it")
        finally:
            stopping.waiting = None
            envs.close()
    _artifacts(experiment, folder, log, tracker)
    return ended


class Loop:
    """A run under way: its agent, its counters, and the steps of an iteration."""

    def __init__(
        self,
        experiment: Experiment,
        collector: Collector,
        folder: Path,
        tracker: Tracking,
        log: Log,
        display: Display,
        deadline: float | None,
        stopping: Stopping,
    ) -> None:
        self.stopping = stopping
        self.experiment, self.config, self.env = experiment, experiment.config, experiment.env
        self.collector, self.folder, self.tracker, self.log, self.display = collector, folder, tracker, log, display
        self.deadline = deadline
        """On the monotonic clock; None: no budget."""
        self.inference = experiment.make_inference(collector, display)
        self.agent = experiment.make_agent(experiment.encoder, collector.envs, self.inference, self.config.seed)
        teach(self.agent, experiment)
        self.agent.progress = display
        self.wants = self.config.agent.wants()
        if not isinstance(self.wants, Episodes | AgentSteps):
            name = self.config.agent.component.__name__
            raise UserError(f"{name}.Config.wants() must give Episodes(count) or AgentSteps(count); got {self.wants!r}")
        endless = isinstance(self.wants, AgentSteps)
        self.stepper = Stepper(collector.envs, self.agent.stack, self.config.seed) if endless else None
        self.iteration = self.steps = self.evaluated = 0
        """Updates, environment steps, and environment steps at the last evaluation."""
        self.saved = 0
        """The update that the checkpoint is of."""
        self.wins = self.episodes = 0
        """Training episodes of this update that succeeded, and that ended, so far."""
        self.seconds = 0.0
        """Spent in iterations."""
        self.best: float | None = None
        self.ranking = "eval/return" if endless else "train/return"
        """What the best policy has most of: a return, of the very policy that is kept. (Success, a share of few
        episodes, has ties.)"""
        self.pace = Pace(self.config, self.env)
        self.usage = Usage(experiment.device) if self.config.system_metrics else None
        self.ledger = Ledger(experiment.encoder, experiment.frames)
        self.evaluating: tuple[str, int] = "", 0
        """The evaluation that goes on, as the display shows it: name and steps."""
        self.stage: Literal["preparing", "resuming", "training", "final"] = "preparing"
        """What goes on. No budget stops anything before training."""
        self.since = time.monotonic()
        """When what a stop would lose began: at the last checkpoint."""

    def begin(self, start: Checkpoint) -> None:
        """Go on where a checkpoint was made, or warm the agent up and evaluate it."""
        experiment, envs = self.experiment, self.collector.envs
        facts.record(
            experiment, self.inference, envs.renderer() if experiment.frames else "none", self.folder, self.tracker
        )
        for text in experiment.demos.mismatches() if experiment.demos else ():
            self.display.line(f"note: {text}")
        demos = experiment.replay(self.collector, self.agent, experiment.encoder, self.inference, self.display)
        if start:
            self.stage = "resuming"
            saving.restore(self.folder, self.agent, self.stepper, demos, start)
            self.iteration, self.steps = start.values["iteration"], start.values["steps"]
            self.evaluated, self.seconds = start.values["evaluated"], start.values["seconds"]
            self.best, self.saved = start.values["best"], self.iteration
            self.pace.read(self.log.rows)
            self.ledger.restore(start.values.get("cost"), self.steps)
            self.display.line(f"resumed after {self.iteration} updates ({self.steps:,} steps)")
            return
        self.display.phase("warm start", 0)
        began = time.monotonic()
        metrics = self.agent.warm_start(demos, self.display)
        spent = time.monotonic() - began
        soundness.check(self.agent, "in the warm start", metrics)
        metrics = soundness.finite(metrics, self.display.line)
        if metrics:
            self.display.line("warm start: " + ", ".join(f"{k} {v:.4g}" for k, v in metrics.items()))
            metrics["time/warm_start"] = spent
        metrics |= self.evaluate("always")
        self.keep_best(metrics)
        if metrics:
            metrics |= self.ledger.add(metrics, self.experiment.device)
        self.log.append(0, metrics)
        self.commit()

    def run(self) -> None:
        """All iterations that are left, then the final evaluations; BudgetOver when the time is over. A UserError
        says what is kept."""
        self.stage = "training"
        try:
            while self.iteration < self.config.iterations:
                self.stopping.pause()
                self.iterate()
            self.stopping.pause()
            self.stage = "final"
            self.expect()
            final = self.evaluate("end")
        except (UserError, MachineError) as error:
            point = f"update {self.saved}" if self.saved else "the warm start"
            kept = f"checkpoint and policies stay as they were after {point}: `rrl resume` begins there"
            kind = MachineError if isinstance(error, MachineError) else UserError
            raise kind(f"{error}\n  {kept}") from error
        self.log.append(self.steps, final)
        self.commit(finished=True)

    def iterate(self) -> None:
        """Collect what the agent wants, update it, evaluate it if it is time to, write everything down."""
        usual = self.seconds / max(self.iteration, 1)
        if self.deadline is not None and usual > self.deadline - time.monotonic():
            raise BudgetOver  # another update of the usual length would not fit
        self.collector.envs.deaths = 0
        start = time.monotonic()
        name = f"update {self.iteration + 1}/{self.config.iterations}"
        metrics, steps = self.collect_and_update(name)
        soundness.check(self.agent, f"in {name}", metrics)
        metrics = soundness.finite(metrics, self.display.line)
        self.iteration, self.steps = self.iteration + 1, self.steps + steps
        self.pace.updated(metrics, steps)
        self.display.line(self.in_words(metrics))
        if self.steps - self.evaluated >= self.config.eval_every or self.iteration == self.config.iterations:
            metrics |= self.evaluate("always")
            self.evaluated = self.steps
            self.keep_best(metrics)  # of episodes: a second time, without effect
        self.seconds += time.monotonic() - start
        metrics |= {"iteration": self.iteration, "time/iteration": time.monotonic() - start}
        metrics |= summary(self.log.rows, self.steps, metrics, self.env.score)
        metrics |= self.ledger.add(metrics, self.experiment.device)
        metrics |= self.usage() if self.usage else {}
        self.log.append(self.steps, metrics)
        self.commit()
        self.expect()

    def collect_and_update(self, name: str) -> tuple[Metrics, int]:
        """One iteration's data and the update: (metrics, environment steps)."""
        self.wins = self.episodes = 0
        if isinstance(self.wants, Episodes):
            self.display.phase(f"{name}: sampling", self.wants.count * self.env.horizon)
            learning = partial(self.display.phase, f"{name}: learning", 0)
            return on_episodes(
                self.agent,
                self.collector,
                self.wants.count,
                self.config.seed,
                self.iteration,
                self.ledger,
                progress=self.advance,
                ended=self.ended,
                sampled=self.keep_best,
                learning=learning,
            )
        assert self.stepper is not None
        once = self.wants.count * self.config.num_envs * self.env.action_repeat
        self.display.phase(name, -(-self.config.log_every // once) * once)
        every = self.config.log_every
        return on_steps(self.agent, self.stepper, self.wants, every, self.ledger, self.stepped)

    def advance(self, count: int) -> None:
        """So many environment steps were made."""
        self.display.advance(count)
        begun = self.stage in ("training", "final")
        if begun and self.deadline is not None and time.monotonic() > self.deadline:
            raise BudgetOver

    def stepped(self, count: int) -> None:
        """The same of an agent that learns at every step, whose episodes go on from update to update."""
        assert self.stepper is not None
        self.advance(count)
        if self.env.score.counted:
            for episode in self.stepper.ended[self.episodes :]:
                self.ended(episode.success[0])

    def ended(self, success: bool) -> None:
        """A training episode of this update came to its end: show how many have succeeded."""
        self.wins, self.episodes = self.wins + success, self.episodes + 1
        low, high = wilson(self.wins, self.episodes)
        share = f"{self.env.score.metric('train')} {100 * self.wins / self.episodes:.1f} %"
        self.display.scored(f"{share} ({self.wins} of {self.episodes}; {_interval(100 * low, 100 * high)})")

    def pressed(self) -> bool:
        """A first Ctrl-C came: does the run end at `Stopping.pause`, or else at once? Tells it, and what a second one
        does. An update in progress is finished; where none would be lost, work of more than `WORTH` seconds is."""
        spent = time.monotonic() - self.since
        waits, first, again = self.stage == "training" or spent > WORTH, "", ""
        if self.stage == "training":
            usual = self.seconds / self.iteration if self.iteration else 0.0
            about = f" (about {duration(usual - spent)})" if usual - spent >= 1 else ""
            first = f"update {self.saved + 1}/{self.config.iterations} is finished and saved first{about}"
            again = "this update is lost, and nothing else"
        elif self.stage == "preparing":
            first = "the warm start is finished and saved first"
            again = "training has not begun, and `rrl resume` begins from the start"
        elif self.stage == "final":
            first = f"the final evaluations are finished first ({self.display.eta() or 'how long is not known'})"
            again = "all updates are saved, and `rrl resume` does these again"
        else:
            waits, again = False, "nothing was done since the last checkpoint"
        text = f"Ctrl-C: stopping at once: {again}"
        if waits:
            text = (
                f"Ctrl-C: {first}, then the run ends\n  now: {self.display.now()}\n"
                f"  Ctrl-C again stops at once: {again}"
            )
        # From a thread: the signal may have come while this one was writing, which can't be begun twice.
        threading.Thread(target=self.display.line, args=(text,)).start()
        return waits

    # Evaluations

    def evaluate(self, when: Literal["always", "end"]) -> Metrics:
        """What the evaluators of this moment measure; running episodes go on afterwards."""
        metrics: Metrics = {}
        began = time.monotonic()
        with self.paused(), self.agent.acting():
            for place, config in enumerate(self.config.evaluators):
                if config.when == when:
                    self.evaluating = f"evaluating: {config.component.__name__}", config.steps(self.env)
                    self.display.phase(*self.evaluating)
                    start = time.monotonic()
                    evaluator: Evaluator = build(config)
                    for name, value in evaluator.run(self.agent, self.env, self.context()):
                        metrics[f"{SPACES[when]}/{name}"] = value
                    self.pace.evaluations[place] = time.monotonic() - start
                    if when == "end":
                        self.pace.over.add(place)
                        self.expect()
        if metrics and when == "always":  # a row at the end may stand at the step of the last update's
            metrics["time/evaluate"] = time.monotonic() - began
        return soundness.finite(metrics, self.display.line)

    def expect(self) -> str:
        """Tell the display how long the run takes yet, as far as that is known; returns it in words."""
        left = self.pace.left(self.iteration, self.steps, self.evaluated)
        self.display.expect(left.seconds, left.evaluating, left.untimed)
        return self.display.eta()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While evaluators use the environments."""
        if self.stepper is None:
            yield
        else:
            with self.stepper.paused():
                yield

    def context(self) -> Context:
        """What evaluators may use beside the policy."""
        return Context(
            collector=self.collector,
            frames=self.experiment.frames,
            encoder=self.config.encoder.label(),
            seed=self.config.seed,
            folder=self.folder,
            iteration=self.iteration,
            say=self.display.line,
            progress=self.advance,
            warm_started=self.warm_started,
            network=self.experiment.encoder,
        )

    def warm_started(self, config: Encoder.Config, collector: Collector, count: int) -> list[Policy]:
        """So many of the run's agents on another encoder, warm-started from the run's demonstrations."""
        encoder: Encoder = build(config, cameras=len(self.env.cameras))
        agents: list[Agent] = [
            self.experiment.make_agent(encoder, collector.envs, self.inference, self.config.seed + i)
            for i in range(count)
        ]
        demos = self.experiment.replay(collector, agents[0], encoder, self.inference, self.display)
        self.display.phase("evaluating: cloning", count)
        for agent in agents:
            metrics = agent.warm_start(demos)
            soundness.check(agent, f"in the warm start on {type(encoder).__name__}, for an evaluator", metrics)
            self.display.advance(1)
        self.display.phase(*self.evaluating)
        return list(agents)

    # What is written down

    def keep_best(self, metrics: Metrics) -> None:
        """Save the policy if these metrics, which are its own, are the best so far."""
        value = metrics.get(self.ranking)
        if value is not None and (self.best is None or value > self.best):
            self.best = value
            self.save_policy(BEST_POLICY)

    def commit(self, finished: bool = False) -> None:
        """Checkpoint and policy; all is on disk before MLflow hears of it."""
        self.display.phase("saving", 0)
        start = time.monotonic()
        values = {
            "iteration": self.iteration,
            "steps": self.steps,
            "evaluated": self.evaluated,
            "seconds": self.seconds,
            "best": self.best,
            "cost": self.ledger.snapshot(),
            "rows": len(self.log.rows),
            "finished": finished,
            "identity": self.experiment.identity,
        }
        saving.save(self.folder, self.agent, self.stepper, values)
        self.save_policy(POLICY)
        self.saved, self.since = self.iteration, time.monotonic()
        self.tracker.metrics(self.log.rows)
        self.pace.saving = time.monotonic() - start

    def save_policy(self, name: str) -> None:
        """The policy as it is, in a file of the run's folder."""
        envs = self.collector.envs
        dims = {"state_dim": envs.state_dim, "action_dim": envs.action_dim}
        made = {"made_with": self.experiment.made_with, **self.experiment.encoder_facts}
        facts = {**made, **dims, "iteration": self.iteration}
        policies.save(self.folder / name, self.agent, self.config, facts, project(self.folder))

    def in_words(self, metrics: Metrics) -> str:
        """What an iteration did, and how fast, in lines of no more than `COLUMNS`."""
        parts = [f"update {self.iteration}/{self.config.iterations}", f"steps {self.steps:,}"]
        score = self.env.score
        if score.counted and score.metric("train") in metrics:
            name = score.metric("train")
            interval = _interval(metrics[f"{name}_low"], metrics[f"{name}_high"])
            parts.append(f"{name} {score.text(metrics[name])} ({interval})")
        if "train/return" in metrics:
            parts.append(f"return {metrics['train/return']:.1f}")
        parts += [text.format(metrics[name]) for name, text in self.agent.metrics.items() if name in metrics]
        spent = {name: metrics[f"time/{name}"] for name in ("update", "encode", "act", "simulate", "render")}
        waiting = "waiting to " if self.stepper is None else ""  # a stepper's are the simulators' own clocks
        speed = [
            f"{metrics['time/steps_per_second']:.0f} steps/s (learn {spent['update']:.0f}, encode "
            f"{spent['encode']:.0f}, act {spent['act']:.0f}, {waiting}simulate {spent['simulate']:.0f} and render "
            f"{spent['render']:.0f} s)"
        ]
        speed += [eta] if (eta := self.expect()) else []
        if self.deadline is not None:
            speed.append(f"budget left {duration(max(self.deadline - time.monotonic(), 0.0))}")
        return wrapped(f"{'  '.join(parts)}\n  {'  '.join(speed)}", COLUMNS)


def _interval(low: float, high: float) -> str:
    """In percent, Wilson's."""
    return f"95 %: {low:.1f} to {high:.1f}"


def _artifacts(experiment: Experiment, folder: Path, log: Log, tracker: Tracking) -> None:
    """Plot the curve and hand all files to the tracker."""
    learning_curve(log.rows, facts.title(experiment), experiment.env.score, folder / "learning_curve.png")
    for path, inside in shown(folder):
        tracker.artifact(path, inside)
