"""The code of a policy as a model of MLflow's: copied into each such model, and run where one is loaded. Nothing of it
is pickled; rrl must be installed there."""

from __future__ import annotations

from typing import Any

import mlflow
import numpy as np
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from numpy.typing import NDArray

import rrl


class Policy(PythonModel):
    """What `rrl.load_policy` gives, behind MLflow's interface."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the policy's file, which is one of the model's artifacts."""
        self.policy = rrl.load_policy(context.artifacts["policy"])

    def predict(  # type: ignore[no-untyped-def]  # MLflow warns of hints that it has no schema for
        self, context: PythonModelContext, model_input, params: dict[str, Any] | None = None
    ) -> NDArray[np.float32]:
        """The mean actions, float32 [N, m], of N observations: `state` float32 [N, p] and, for a policy that sees,
        `frames` uint8 [N, H, W, 3 * cameras]. With the parameter `reset`, episodes begin there: policies that see
        several pictures at once remember the last ones."""
        if params and params["reset"]:
            self.policy.reset()
        return self.policy.act(model_input)


mlflow.models.set_model(Policy())
