"""Which evaluator does a job, for those who know none by name: `rrl eval` of a policy file."""

from __future__ import annotations

from rrl.evaluators.base import Evaluator
from rrl.evaluators.success import EpisodeReturn, SuccessRate
from rrl.evaluators.video import Video
from rrl.score import Score


def scoring(score: Score, episodes: int) -> Evaluator.Config:
    """What measures this score over so many episodes, of the mean and of sampled actions."""
    cls = SuccessRate if score.counted else EpisodeReturn
    return cls.Config(episodes=episodes, actions="both")


def filming() -> Evaluator.Config:
    """What films some episodes."""
    return Video.Config()
