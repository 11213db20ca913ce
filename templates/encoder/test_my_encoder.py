"""What rrl counts on: features of the promised shape, the same each time, of the weights that it is given."""

from pathlib import Path

import pytest
import torch
from my_encoder import MyEncoder
from safetensors.torch import save_file

from rrl.config import ginfile
from rrl.encoders.base import Inference


def made(cameras=1, **settings):
    return MyEncoder(MyEncoder.Config(**settings), cameras=cameras)


def random_pictures(encoder, count=2):
    size = encoder.config.frames().size
    shape = (count, size, size, 3 * encoder.cameras)
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_features_have_their_shape_and_are_the_same_twice():
    encoder = made(cameras=2)
    pictures = random_pictures(encoder)
    features = encoder(pictures)
    assert features.shape == (2, encoder.dim)
    assert features.isfinite().all()
    assert torch.equal(encoder(pictures), features)
    assert torch.equal(made(cameras=2)(pictures), features)
    assert not torch.equal(features[0], features[1])


def test_what_runs_compute_with_gives_the_same_features():
    encoder = made()
    pictures = random_pictures(encoder)
    torch.testing.assert_close(encoder.inference(Inference())(pictures), encoder(pictures), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(type(None) is MyEncoder.Config.model_fields["weights"].annotation, reason="it has no weights")
def test_a_file_of_weights_is_used(tmp_path):
    other, file = made(seed=1), tmp_path / "weights.safetensors"
    save_file(other.network.state_dict(), file)
    pictures = random_pictures(other)
    assert torch.equal(made(weights=str(file))(pictures), other(pictures))
    assert not torch.equal(made()(pictures), other(pictures))


def test_its_gin_file_is_laid_over_a_run():
    config = ginfile.load(["adroit_door_mobilenetv2", Path(__file__).with_name("my_encoder.gin")])
    assert isinstance(config.encoder, MyEncoder.Config)
