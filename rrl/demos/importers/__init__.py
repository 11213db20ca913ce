"""Demonstrations in other people's formats, read into one form; nothing in a file is ever executed.

`read` gives what a file holds: actions, initial states and, where there are any, recorded states; `environment` what
it says of where they were recorded. Turning them into a set of this project (`rrl.demos.Demos`) needs the simulator:
`rrl demos import` does it.
"""

from rrl.demos.importers.base import Recorded, array, finite, normalised, odd_actions, split
from rrl.demos.importers.formats import FORMATS, environment, read

__all__ = ["FORMATS", "Recorded", "array", "environment", "finite", "normalised", "odd_actions", "read", "split"]
