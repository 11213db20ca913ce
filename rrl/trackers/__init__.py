"""Where else a run is shown, beside MLflow: importing this package registers the trackers."""

from rrl.trackers.base import Run, Tracker
from rrl.trackers.tensorboard import TensorBoard
from rrl.trackers.trackio import Trackio
from rrl.trackers.wandb import WandB

__all__ = ["Run", "TensorBoard", "Tracker", "Trackio", "WandB"]
