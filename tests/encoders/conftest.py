"""What tests of encoders share."""

import pytest
import torch

from rrl.encoders import vc1, vdvae


@pytest.fixture
def empty_hub(tmp_path, monkeypatch):
    """No test sees or fills the developer's torch hub cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)


@pytest.fixture(scope="module")
def shallow():
    """The contract needs not all layers of the deepest networks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vc1.NETWORKS, "base", (1, 12))
        patch.setitem(vdvae.BLOCKS, 32, {32: 0, 4: 1, 1: 1})
        yield
