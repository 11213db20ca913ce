"""The interface of evaluators: a policy and an environment in, named numbers out."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from rrl.envs.base import EnvFactory, FrameRequest
from rrl.registry import Component, Mistake, Parts, build, proposals
from rrl.rollout.data import Policy
from rrl.rollout.episodes import Collector

if TYPE_CHECKING:
    from rrl.encoders.base import Encoder

Episodes = Annotated[int, Field(gt=0, le=100_000)]
"""Of one evaluation: rewards, flags and noise of all their steps are held at once."""


@dataclass(frozen=True)
class Context:
    """What an evaluator may use beside the policy."""

    collector: Collector
    """The run's own environments: rendering what the policy's encoder asks for."""
    frames: FrameRequest | None
    """What the policy's encoder asks for."""
    encoder: str
    """The encoder's name, with UNTRAINED or blind where it deserves that."""
    seed: int
    """The run's seed; evaluation episodes have a stream of their own."""
    folder: Path
    """Files for people go here (videos, pictures); the run tracks them as artifacts."""
    iteration: int
    """Number of updates so far."""
    say: Callable[[str], None]
    """Print a line for people."""
    progress: Callable[[int], None]
    """Called with the number of environment steps made."""
    warm_started: Callable[[Encoder.Config, Collector, int], list[Policy]]
    """So many of the run's agents with another encoder, warm-started from the run's demonstrations (replayed
    on the given collector) with seeds of their own, and not trained further."""
    network: Encoder | None = None
    """The policy's encoder itself; None: it isn't at hand."""


class Evaluator(Component, abc.ABC):
    """Measures a policy; the run logs what `run` yields under `eval/`, or `final/` at the end."""

    kind: ClassVar[str] = "evaluator"
    needs_success: ClassVar[bool] = False
    """Does it count successes? Then the environment must have a goal flag."""
    measures_score: ClassVar[bool] = False
    """Does it measure the task's score with the policy alone? Then `rrl eval` runs it from a policy file."""

    class Config(Component.Config):
        """Settings shared by all evaluators."""

        when: Literal["always", "end"] = "always"
        """'always': after the warm start, then as `Experiment.eval_every` says; 'end': at the end."""

        def steps(self, env: EnvFactory) -> int:
            """Agent steps of one evaluation, at most."""
            return 0

        def refusal(self) -> str | None:
            """Why this machine can't do it, with the remedy, asked before a run begins; None: it can."""
            return None

        def misfit(self, run: Parts) -> Iterable[Mistake]:
            """No success to count, or the same evaluator twice."""
            cls, name = self.component, self.component.__name__
            assert issubclass(cls, Evaluator)
            env: EnvFactory = build(run.env)
            alike = [other for other in run.evaluators if (other.component, other.when) == (cls, self.when)]
            if len(alike) > 1 and alike[0] is self:
                yield Mistake(
                    "evaluators",
                    f"{name} is there twice with when = {self.when!r}: their numbers would share names",
                    "remove one, or let one run at another time",
                )
            if cls.needs_success and not env.score.counted:
                yield Mistake(
                    "evaluators",
                    f"{name} counts successes, but {env.name} has no success test, only a return",
                    f"take {proposals('evaluator', measures_score=True, needs_success=False)}, as in "
                    f'`--set "Experiment.evaluators = ({_without_success(run)})"`',
                )

    def __init__(self, config: Config) -> None:
        self.config = config

    @abc.abstractmethod
    def run(self, policy: Policy, env: EnvFactory, context: Context) -> Iterator[tuple[str, float]]:
        """Yield (name, value) pairs; names without a namespace."""


def _without_success(run: Parts) -> str:
    """The run's evaluators, with one of returns for those that count successes."""
    first = proposals("evaluator", measures_score=True, needs_success=False).split(", ")[0]
    classes = [other.component for other in run.evaluators]
    others = [f"@{cls.__name__}()" for cls in classes if not getattr(cls, "needs_success", False)]
    return ", ".join(dict.fromkeys([first, *others])) + ("" if others else ",")
