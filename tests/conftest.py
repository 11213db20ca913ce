"""What every test needs: set before any test module imports numpy, torch or mujoco."""

import os
import sys
from contextlib import suppress

import psutil
import pytest

# One thread per library: pytest-xdist already keeps the cores busy, and rounding stays the same everywhere.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("LP_NUM_THREADS", "0")  # Mesa's renderer: no threads of its own
if sys.platform == "linux":
    os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


SLOWEST = ("sweeps", "run")
"""Folders whose tests start processes: begun last, they would keep one process busy after the others have ended."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slowest files first (pytest-xdist keeps the order with `--no-loadscope-reorder`)."""
    items.sort(key=lambda item: item.path.parent.name not in SLOWEST)


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """A folder with what shipped files ask users to make or get: an exported encoder and a pretrained one (small,
    untrained), and place-holders for demonstrations and for published weights."""
    import stand_ins

    folder = tmp_path_factory.mktemp("exported")
    stand_ins.put(folder)
    return folder


def pytest_exception_interact(node: pytest.Item) -> None:
    """A run that a failed test has begun would go on for hours beside the others."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if any(word == "rrl.cli" or word.endswith("/rrl") for word in child.cmdline()):
                child.kill()


@pytest.fixture
def cartpole_rad(exported, monkeypatch):
    """Run where these files are."""
    monkeypatch.chdir(exported)


@pytest.fixture(autouse=True, scope="session")
def _nothing_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests neither read a developer's cached features nor write to a developer's MLflow server. What takes long to
    make (features, measured speeds, an empty MLflow store) is made once for all processes of a test run."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    os.environ["RRL_TEST_SHARED"] = str(shared)
    os.environ["RRL_CACHE"] = str(shared / "cache")
    os.environ.pop("MLFLOW_TRACKING_URI", None)
