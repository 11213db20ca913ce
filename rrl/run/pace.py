"""How long the rest of a run takes, as far as its parts have been timed."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rrl.envs.base import EnvFactory
from rrl.evaluators.base import Evaluator
from rrl.run.experiment import Experiment
from rrl.store.tracking import Row

RECENT = 5  # updates whose time is asked: episodes may grow shorter as a policy learns


@dataclass(frozen=True)
class Update:
    """What one update took."""

    seconds: float
    """Collecting and learning, no evaluation."""
    stepping: float
    """Seconds of that in which the environments made their steps, encoding and acting included."""
    steps: int
    """Environment steps."""


@dataclass(frozen=True)
class Left:
    """What a run takes yet."""

    seconds: float
    """Updates and evaluations; 0: nobody knows."""
    evaluating: float
    """Seconds of that in evaluations."""
    untimed: tuple[str, ...]
    """Evaluators that come yet and are not counted: how long they take is not known."""


class Pace:
    """The times of a run's updates and evaluations."""

    def __init__(self, config: Experiment.Config, env: EnvFactory) -> None:
        self.config, self.env = config, env
        self.updates: deque[Update] = deque(maxlen=RECENT)
        self.evaluations: dict[int, float] = {}
        """Place among the run's evaluators -> seconds that it took last."""
        self.over: set[int] = set()
        """Places of evaluators that won't run again."""
        self.saving = 0.0
        """Seconds that writing an update down took last."""
        self.watched = config.agent.watched() * env.action_repeat
        """Environment steps that nothing is learnt from: far quicker than all that come later."""

    def read(self, rows: Iterable[Row]) -> None:
        """Learn from what a run has written down."""
        before = 0
        for row in rows:
            if "time/iteration" in row.metrics:
                self.updated(row.metrics, row.step - before)
                if self.updates and any(name.startswith("eval/") for name in row.metrics):
                    self._shared(row.metrics["time/iteration"] - self.updates[-1].seconds)
            before = row.step

    def _shared(self, seconds: float) -> None:
        """All evaluators that run after updates took so long together."""
        steps = {n: e.steps(self.env) for n, e in enumerate(self.config.evaluators) if e.when == "always"}
        for place, count in steps.items():
            self.evaluations[place] = max(seconds, 0.0) * count / max(sum(steps.values()), 1)

    def updated(self, metrics: Mapping[str, float], steps: int) -> None:
        """An update with these metrics has made so many environment steps."""
        speed = metrics.get("time/steps_per_second", 0.0)
        before, self.watched = self.watched, self.watched - steps
        if steps <= 0 or speed <= 0 or before > 0:
            return
        # Agents that learn at every step time their steps and updates together.
        apart = metrics.get("time/sampling")
        seconds = steps / speed if apart is None else apart + metrics.get("time/update", 0.0)
        stepping = sum(metrics.get(f"time/{part}", 0.0) for part in ("simulate", "render", "encode", "act"))
        self.updates.append(Update(seconds, stepping, steps))

    def left(self, iteration: int, steps: int, evaluated: int) -> Left:
        """What is to come after so many updates and environment steps, `evaluated` of them before the last
        evaluation; nothing while no update has been timed."""
        rest = self.config.iterations - iteration
        if rest > 0 and not self.updates:
            return Left(0.0, 0.0, ())
        again, evaluating, untimed = self._evaluations(rest, steps - evaluated), 0.0, []
        for place, evaluator in enumerate(self.config.evaluators):
            count = again if evaluator.when == "always" else int(place not in self.over)
            seconds = self._seconds(place, evaluator)
            if seconds is not None:
                evaluating += count * seconds
            elif count:
                untimed.append(evaluator.component.__name__)
        each = sum(update.seconds for update in self.updates) / max(len(self.updates), 1)
        return Left(rest * (each + self.saving) + evaluating, evaluating, tuple(dict.fromkeys(untimed)))

    def _evaluations(self, rest: int, since: int) -> int:
        """Times that the evaluators of updates run yet: `since` environment steps after the last time, and at the
        very end."""
        every = self.config.eval_every
        now = since >= every or (rest == 0 and since > 0)
        if rest <= 0:
            return int(now)
        each = sum(update.steps for update in self.updates) / len(self.updates)
        first = max(1, math.ceil((every - (0 if now else since)) / each))
        more, over = divmod(rest - first, max(1, math.ceil(every / each)))
        return now + (1 + more + (over > 0) if rest >= first else 1)

    def _seconds(self, place: int, evaluator: Evaluator.Config) -> float | None:
        """Of one evaluation: as it took last, or as another evaluator of its class did for its steps, or, if it runs
        the policy alone, as the training's own steps did. None if nothing tells: filming may be far slower."""
        if place in self.evaluations:
            return self.evaluations[place]
        steps = evaluator.steps(self.env)
        for other, seconds in self.evaluations.items():
            alike = self.config.evaluators[other]
            if alike.component is evaluator.component and alike.steps(self.env):
                return seconds * steps / alike.steps(self.env)
        cls = evaluator.component
        assert issubclass(cls, Evaluator)
        if not self.updates or not cls.measures_score:
            return None
        agent_steps = sum(update.steps for update in self.updates) / self.env.action_repeat
        return steps * sum(update.stepping for update in self.updates) / agent_steps
