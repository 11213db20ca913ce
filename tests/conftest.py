"""What every test needs: set before any test module imports numpy, torch or mujoco."""

import os
import sys

import pytest

# One thread per library: pytest-xdist already keeps the cores busy, and rounding stays the same everywhere.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS"):
    os.environ.setdefault(name, "1")
if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(autouse=True)
def _no_store_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own MLflow server never hears of tests."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
