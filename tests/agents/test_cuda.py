"""What only a GPU can show: graphs, streams and compiled encoders against the plain computation."""

import gc

import numpy as np
import pytest
import torch
from helpers.sac_agents import make, some_batch, step_of, values
from torch import nn
from torch.backends import cudnn

from rrl.agents.ferm import FERM
from rrl.agents.rad import CURL, RAD, SACAE
from rrl.agents.sac import SAC
from rrl.encoders import backends
from rrl.encoders.base import Inference
from rrl.encoders.input import Input
from rrl.machine.cuda_graphs import WARM_UP

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
GPU = torch.device("cuda")
COUNT = 4 * (WARM_UP + 2)


def agent_on(device, cls, **config):
    return make(cls, actor_every=2, target_every=4, actor_lr=1e-3, critic_lr=1e-3, device=device, **config)


def learnt(agent, count=COUNT, first=0):
    metrics = [agent.learn(some_batch(agent, seed=first + i)) for i in range(count)]
    return metrics, {name: p.detach().cpu() for name, p in agent.named_parameters()}


def test_updates_as_graphs_are_the_plain_ones():
    graphs, plain, cpu = (agent_on(device, SAC) for device in ("cuda", "cuda", "cpu"))
    plain._replayed.graphs = False
    told, parameters = learnt(graphs)
    assert len(graphs._replayed.recorded) == 3  # critic alone, with the actor, with actor and targets
    assert not plain._replayed.recorded
    begin = values(agent_on("cpu", SAC))
    for other in (plain, cpu):
        metrics, expected = learnt(other)
        for name, p in parameters.items():
            moved = (expected[name] - begin[name]).norm()
            assert (p - expected[name]).norm() <= 1e-3 * moved + 1e-5, (name, other.device)
        for ours, theirs in zip(told, metrics, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-3)


def test_graphs_are_made_anew_after_restoring(tmp_path):
    agent = agent_on("cuda", SAC)
    learnt(agent)
    tensors, values = agent.snapshot()
    _, expected = learnt(agent, first=100)
    agent.restore(tensors, values)  # the averages lie elsewhere now
    assert not agent._replayed.recorded
    _, again = learnt(agent, first=100)
    for name, p in expected.items():
        torch.testing.assert_close(again[name], p, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("cls", [RAD, CURL, SACAE, FERM])
def test_graphs_of_convolutions_are_the_plain_ones(cls, precision):
    graphs, plain = (agent_on("cuda", cls, precision=precision) for _ in range(2))
    plain._replayed.graphs = False
    begin = values(graphs)
    with cudnn.flags(deterministic=True):
        told, parameters = learnt(graphs)
        metrics, expected = learnt(plain)
    assert len(graphs._replayed.recorded) == 3
    apart = {
        name: float((p - expected[name]).norm() / ((expected[name] - begin[name].cpu()).norm() + 1e-3))
        for name, p in parameters.items()
    }
    assert max(apart.values()) <= 0.02, apart
    for ours, theirs in zip(told, metrics, strict=True):
        assert ours == pytest.approx(theirs, rel=0.02, abs=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("cls", [RAD, CURL, SACAE, FERM])
def test_agents_learn_from_pictures(cls, precision):
    agent = agent_on("cuda", cls, precision=precision, slots=2)
    rng = np.random.default_rng(0)
    for k in range(COUNT):
        metrics = agent.update(step_of(agent, rng, t=k))
    assert np.isfinite(list(metrics.values())).all() and metrics["encoder/moved"] > 0


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 3e-2)])
def test_a_compiled_encoder_gives_the_cpus_features(precision, tolerance):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, 4, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).eval()
    picture = Input(224, mean=(120 / 255,) * 3, std=(60 / 255,) * 3)
    pictures = torch.randint(0, 256, (11, 224, 224, 3), dtype=torch.uint8)
    expected = backends.encode(network, picture, Inference(), 0)(pictures)
    for batch in (None, 4):  # in chunks; as one graph of four pictures, the last time with old ones in it
        encode = backends.encode(network, picture, Inference(device=GPU, precision=precision, batch=batch), 0)
        gc.collect()
        taken = [torch.full((2**k,), torch.nan, device=GPU) for k in range(4, 20) for _ in range(4)]
        features = encode(pictures)  # of weights that are still its own, not in the memory just taken
        del taken
        assert features.device.type == "cuda" and features.shape == expected.shape
        assert (features.cpu() - expected).norm() <= tolerance * expected.norm()
