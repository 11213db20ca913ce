"""Demonstrations. Importing this package registers `DemoSet`."""

from rrl.demos.replay import DemoSet
from rrl.demos.sets import Demos

__all__ = ["DemoSet", "Demos"]
