"""Evaluators: importing this package registers them."""

from rrl.evaluators.base import Context, Evaluator
from rrl.evaluators.blind import BlindControl
from rrl.evaluators.distractors import VisualDistractors
from rrl.evaluators.grad_cam import GradCAM
from rrl.evaluators.sensors import SensorFaults
from rrl.evaluators.success import EpisodeReturn, SuccessRate
from rrl.evaluators.video import Video

__all__ = [
    "BlindControl",
    "Context",
    "EpisodeReturn",
    "Evaluator",
    "GradCAM",
    "SensorFaults",
    "SuccessRate",
    "Video",
    "VisualDistractors",
]
