"""Pictures and gin lines for tests of encoders that learn."""

import pytest
import torch

from rrl.config import ginfile


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise_frames(n, side=100, channels=9, seed=0):
    """White noise, none of it black: windows are told apart by their content."""
    return torch.randint(1, 256, (n, side, side, channels), dtype=torch.uint8, generator=seeded(seed))


def frames_of(encoder, n, seed=0):
    return noise_frames(n, encoder.config.render, encoder.channels, seed)


def only_problem(encoder):
    """The one mistake that is found in a gin file with these lines on the encoder, in words."""
    rest = "Experiment.env = @Adroit()\nAdroit.task = 'pen'\n"
    rest += "Experiment.agent = @NPG()\nExperiment.iterations = 1\n"
    with pytest.raises(ginfile.ConfigError) as error:
        ginfile.loads(encoder + rest, "x.gin")
    (problem,) = error.value.problems
    return str(problem)
