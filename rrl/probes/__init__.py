"""Probes: what encoders are worth on a task, without training in it. Importing this package registers `Probe`."""

from rrl.probes.settings import Probe

__all__ = ["Probe"]
