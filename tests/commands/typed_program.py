"""What mypy --strict must accept of a program that uses the public names, with their types (`make lint`)."""

from pathlib import Path

import rrl
from rrl.agents import DAPG
from rrl.demos import DemoSet
from rrl.encoders import MobileNetV2
from rrl.envs import Adroit
from rrl.evaluators import SuccessRate


def config(seed: int) -> rrl.Experiment.Config:
    return rrl.Experiment.Config(
        env=Adroit.Config(task="door"),
        encoder=MobileNetV2.Config(),
        agent=DAPG.Config(),
        demos=DemoSet.Config(),
        evaluators=(SuccessRate.Config(),),
        iterations=2,
        seed=seed,
    )


def trained(seed: int) -> rrl.LoadedPolicy:
    folder: Path = rrl.train(config(seed), budget=60.0)
    return rrl.load_policy(folder)


how: rrl.Inference = rrl.Inference(threads=2)
refused: type[Exception] = rrl.UserError
version: str = rrl.__version__
wrappers = (rrl.EncodedObservation, rrl.EncodedVectorObservation)
