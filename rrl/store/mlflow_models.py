"""Policies as models of MLflow's, made from code and a policy file."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from rrl.registry import UserError
from rrl.store.tracking import connected

CODE = Path(__file__).with_name("mlflow_policy.py")
Shape = tuple[int, ...]


def log_policy(
    uri: str,
    run_id: str,
    name: str,
    policy: Path,
    beside: Sequence[Path],
    inputs: Mapping[str, tuple[str, Shape]],
    actions: int,
    register: str | None = None,
) -> tuple[str, str | None]:
    """Add a policy file, with the files that it needs `beside` it, to an MLflow run as a model; returns its address
    and, if it is to be called `register` in the model registry, its version there.

    `inputs`: type and shape of one observation's arrays. The run's status stays. UserError if the store can't be
    reached, or takes no such name.
    """
    client = connected(uri, run_id)
    from mlflow import pyfunc
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model, ModelSignature
    from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    signature = ModelSignature(
        Schema([TensorSpec(np.dtype(kind), (-1, *shape), key) for key, (kind, shape) in inputs.items()]),
        Schema([TensorSpec(np.dtype("float32"), (-1, actions))]),
        ParamSchema([ParamSpec("reset", DataType.boolean, False)]),
    )
    experiment = client.get_run(run_id).info.experiment_id
    try:
        if register is not None and not client.search_registered_models(f"name = '{register}'"):
            client.create_registered_model(register)
        model = client.create_logged_model(experiment, name=name, source_run_id=run_id, model_type="policy")
        with tempfile.TemporaryDirectory() as passing:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # there is no input example
                pyfunc.save_model(
                    Path(passing, "model"),
                    mlflow_model=Model(run_id=run_id, model_id=model.model_id, artifact_path=model.artifact_location),
                    python_model=CODE,
                    artifacts={"policy": str(policy), **{file.name: str(file) for file in beside}},
                    signature=signature,
                    # Not rrl itself: a package index may have another package of this name.
                    pip_requirements=[f"mlflow=={version('mlflow')}"],
                    metadata={"rrl": version("rrl")},
                )
            client.log_model_artifacts(model.model_id, str(Path(passing, "model")))
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        address, known = f"models:/{model.model_id}", None
        if register is not None:
            known = client.create_model_version(register, address, run_id, model_id=model.model_id).version
    except MlflowException as error:
        raise UserError(f"MLflow takes no such model: {error}") from error
    return address, None if known is None else str(known)
