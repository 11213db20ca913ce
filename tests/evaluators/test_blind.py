"""The blind control asks the encoders which of them is blind on purpose."""

import pytest

from rrl import registry
from rrl.encoders.base import Encoder
from rrl.evaluators.blind import blind_encoder


def test_the_blind_encoder_sees_nothing_and_says_so():
    config = blind_encoder()
    assert config.blind_on_purpose
    assert config.frames() is None
    assert "blind" in config.label()


@pytest.mark.parametrize("name", registry.names("encoder"))
def test_what_an_encoder_offers_as_blind_control_is_one(name):
    cls = registry.get(name)
    assert issubclass(registry.implementation(cls), Encoder)
    config = cls.blind_control()
    assert config is None or (config.blind_on_purpose and config.component is cls)
