"""`rrl ui`: MLflow's pages over the store that runs in this folder write to."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable

from rrl.registry import UserError
from rrl.store.tracking import experiment_id, local, quiet_mlflow, store, unmasked


def open_ui(port: int, line: Callable[[str], None]) -> None:
    """Become MLflow's server on this port of this machine; where the store is a server, say its address instead."""
    quiet_mlflow()
    uri = store()
    if uri.startswith(("http://", "https://")):
        line(f"your MLflow server shows its own pages: {uri}")
        return
    path = local(uri)
    if path and not path.exists():
        raise UserError(f"there is no {path} yet: start a run in this folder first, or set MLFLOW_TRACKING_URI")
    _must_be_free(port)
    link = f"http://127.0.0.1:{port}/#/experiments/{experiment_id(uri)}/runs?workflowType=machine_learning"
    line(f"MLflow UI of {uri}, in a few seconds: {link}  (Ctrl-C ends it)")
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # eight processes for what runs don't have
    os.chdir("/")  # uvicorn takes modules of the working folder first, whatever Python was told
    command = [sys.executable, "-P", "-m", "mlflow", "ui", "--workers", "1", "--backend-store-uri", unmasked(uri)]
    os.execv(sys.executable, [*command, "--host", "127.0.0.1", "--port", str(port)])


def _must_be_free(port: int) -> None:
    """UserError if another program has this port: MLflow's server tells so after most of a minute, and as if all was
    well."""
    with socket.socket() as trial:
        # As the server does, for which one that ended just now is gone.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError as error:
            why = f"port {port} of this machine can't be used ({error.strerror})"
            raise UserError(f"{why}: take another --port") from error
