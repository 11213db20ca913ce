"""Demonstrations in other people's formats, read into one form; nothing in a file is ever executed.

`read` gives what a file holds: actions, initial states and, where there are any, recorded states. Turning
them into a set of this project (`rrl.demos.Demos`) needs the simulator: `rrl demos import` does it.
"""

from rrl.demos.importers.base import Recorded, array, finite, odd_actions
from rrl.demos.importers.formats import FORMATS, read

__all__ = ["FORMATS", "Recorded", "array", "finite", "odd_actions", "read"]
