"""A plugin whose simulator fails in its second step, in its own code or in what it calls."""

import json

import numpy as np
from helpers.point import Point, PointSim

from rrl.registry import register


@register
class Faulty(Point):
    """A point that gets nowhere."""

    class Config(Point.Config):
        """Which fault."""

        gain: float = 0.5
        """As a point's."""
        fault: str = "own"
        """Its own, a library's that it calls, or one of rrl's."""

    name = "toy_faulty"

    def make_one(self, frames):
        return FaultySim(self.config)


class FaultySim(PointSim):
    """The simulator."""

    def __init__(self, config):
        super().__init__(config.gain)
        self.fault = config.fault

    def step(self, action):
        if self.steps == 1:
            self.fail()
        return super().step(action)

    def fail(self):
        """Fail."""
        if self.fault == "own":
            return {"hand": np.zeros(3)}["hnad"]
        if self.fault == "a library's":
            return json.loads("{")
        return register(3)  # takes a class
