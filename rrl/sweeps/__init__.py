"""Sweeps: many runs from gin files, seeds and grids. Importing this package registers `Sweep`."""

from rrl.sweeps.plan import Sweep

__all__ = ["Sweep"]
