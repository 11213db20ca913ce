"""An MLflow store for tests that need one but don't test its making, which takes seconds: a copy of an empty one."""

import os
import shutil
from pathlib import Path

from filelock import FileLock


def prepared(folder: Path) -> Path:
    """The folder, with an empty `mlflow.db` in it."""
    shared = Path(os.environ["RRL_TEST_SHARED"])
    template = shared / "mlflow.db"
    with FileLock(shared / "mlflow.lock"):
        if not template.exists():
            from mlflow import MlflowClient

            making = shared / "making.db"
            MlflowClient(f"sqlite:///{making}").search_experiments()
            making.rename(template)
    shutil.copy(template, folder / "mlflow.db")
    return folder
