"""`Adam` against torch's own class: steps, states, and what it spares."""

import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from rrl.agents.adam import Adam


def parameters_like_an_encoders() -> list[nn.Parameter]:
    g = torch.Generator().manual_seed(0)
    filters = torch.randn(4, 3, 3, 3, generator=g).to(memory_format=torch.channels_last)
    return [nn.Parameter(filters), nn.Parameter(torch.randn(7, 5, generator=g)), nn.Parameter(torch.ones(()))]


def gradients(parameters: list[nn.Parameter], seed: int) -> list[Tensor]:
    """Contiguous all of them, the channels_last filters' too."""
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(p.shape, generator=g) for p in parameters]


def of_torch(parameters: list[nn.Parameter]) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, lr=3e-3, betas=(0.5, 0.999), weight_decay=0.1, foreach=False)


def ours(parameters: list[nn.Parameter]) -> Adam:
    return Adam(parameters, 3e-3, beta=0.5, weight_decay=0.1)


def test_it_steps_as_torchs_and_goes_on_from_torchs_state() -> None:
    """Older checkpoints hold the state of torch's class, under the same names."""
    theirs = parameters_like_an_encoders()
    plain = of_torch(theirs)
    own = parameters_like_an_encoders()
    optimiser = ours(own)
    for seed in range(6):
        if seed == 3:  # another one takes over from torch's
            saved = plain.state_dict()["state"]
            own = [nn.Parameter(p.detach().clone()) for p in theirs]
            optimiser = ours(own)
            optimiser.load_state({f"{i}.{name}": t for i, kept in saved.items() for name, t in kept.items()})
        for p, g in zip(theirs, gradients(theirs, seed), strict=True):
            p.grad = g
        plain.step()
        optimiser.step(gradients(own, seed))
        for expected, got in zip(theirs, own, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    state = optimiser.state()
    for i, kept in plain.state_dict()["state"].items():
        for name, expected in kept.items():
            torch.testing.assert_close(state.pop(f"{i}.{name}"), expected, rtol=1e-5, atol=1e-6)
    assert not state


def test_its_state_is_a_copy_and_an_empty_one_a_fresh_start() -> None:
    own = parameters_like_an_encoders()
    optimiser = ours(own)
    optimiser.step(gradients(own, 0))
    state = optimiser.state()
    kept = {name: t.clone() for name, t in state.items()}
    optimiser.step(gradients(own, 1))
    assert all(torch.equal(state[name], kept[name]) for name in kept)
    optimiser.load_state({})  # an older checkpoint from before the first step
    assert not any(t.any() for t in optimiser.state().values())


def test_learning_loads_neither_torchs_compiler_nor_sympy() -> None:
    """Together they take 4 s to import, in every process that learns; agents of every kind of network."""
    code = (
        "import sys; sys.path[:0] = ['.', '..']\n"
        "from helpers.sac_agents import CURL, SACAE, make, some_batch; import test_npg\n"
        "for cls in (CURL, SACAE):\n"
        "    agent = make(cls); agent.learn(some_batch(agent))\n"
        "agent = test_npg.make(test_npg.DAPG); rollout = test_npg.make_rollout()\n"
        "agent.warm_start(rollout); agent.update(rollout)\n"
        "print(agent.value_optimiser.steps[0].item(), {'torch._dynamo', 'sympy'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    steps, found = done.stdout.split(maxsplit=1)
    assert float(steps) > 0
    assert found.strip() == "set()"
