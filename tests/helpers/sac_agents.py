"""Small agents of the SAC family, what they are fed with, and references in float64 for their tests."""

import dataclasses

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from rrl.agents.ferm import FERM
from rrl.agents.rad import CURL, RAD, SACAE
from rrl.agents.replay import Batch
from rrl.agents.sac import SAC
from rrl.encoders import AutoencoderCNN, ContrastiveCNN, PixelCNN
from rrl.encoders.base import Encoder, Inference
from rrl.encoders.state import State
from rrl.envs.base import FrameRequest
from rrl.rollout.data import Obs, Rollout

STATE, ACTION = 3, 2
SIDES = {"render": 20, "crop": 16, "canvas": 24, "layers": 2, "filters": 4, "features": 6}
ENCODERS = {RAD: PixelCNN, CURL: ContrastiveCNN, SACAE: AutoencoderCNN, FERM: ContrastiveCNN}
PIXELS = list(ENCODERS)


class Colours(Encoder):
    """A frozen encoder whose features are the mean colours."""

    class Config(Encoder.Config):
        def frames(self):
            return FrameRequest(size=4)

    def __init__(self, learns=False):
        super().__init__(Colours.Config(), cameras=1)
        self.dim = 3
        self.gain = nn.Parameter(torch.ones(3), requires_grad=learns)

    def forward(self, frames):
        return frames.float().mean((1, 2)) / 255 * self.gain

    def inference(self, how):
        return self  # a module: it must not become part of the agent


Colours.Config.component = Colours  # as `register` does


def make(
    cls=SAC,
    *,
    encoder=None,
    seed=0,
    state_dim=STATE,
    action_dim=ACTION,
    slots=1,
    privileged=0,
    cameras=1,
    precision="fp32",
    device="cpu",
    **config,
):
    """A small agent; `encoder`: one, or settings of the agent's usual one."""
    if not isinstance(encoder, Encoder):
        settings = SIDES | (encoder or {})
        kind = ENCODERS.get(cls)
        encoder = kind(kind.Config(**settings), cameras) if kind else State(State.Config())
    small = {"hidden": (16, 16), "batch": 8, "replay": 200, "init_steps": 4}
    return cls(
        cls.Config(**(small | config)),
        encoder=encoder,
        state_dim=state_dim,
        action_dim=action_dim,
        seed=seed,
        inference=Inference(precision=precision, device=torch.device(device)),
        slots=slots,
        privileged=privileged,
    )


def shaken(agent, scale=0.1, seed=7):
    """The agent with every weight disturbed: biases aren't zero, targets aren't the networks themselves."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in agent.named_parameters():
            if name != "log_alpha":
                p.add_(scale * torch.randn(p.shape, generator=g))
    return agent


def some_obs(agent, count, rng):
    """Raw observations as this agent's environment would show them."""
    state = rng.standard_normal((count, agent.state_dim)).astype(np.float32)
    if agent.pixels is None:
        return Obs(None, state)
    channels = agent.picture[2] * agent.stack
    frames = rng.integers(0, 256, (count, *agent.picture[:2], channels), dtype=np.uint8)
    return Obs(frames, state)


def rollout_of(obs, final, lengths, *, terminated=(), rewards=None, actions=None, rng=None, m=ACTION):
    """A rollout of whole episodes; those in `terminated` truly ended, the others were truncated."""
    t = np.concatenate([np.arange(length) for length in lengths]).astype(np.int32)
    episode = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)
    last = np.append(t[1:] == 0, True)
    true_end = last & np.isin(episode, list(terminated))
    return Rollout(
        obs=obs,
        actions=rng.uniform(-1, 1, (len(t), m)).astype(np.float32) if actions is None else actions,
        rewards=rng.standard_normal(len(t)) if rewards is None else np.asarray(rewards, float),
        flags={},
        episode=episode,
        t=t,
        terminated=true_end,
        truncated=last & ~true_end,
        final_obs=final,
    )


def some_rollout(agent, lengths=(6, 5), terminated=(0,), seed=0):
    rng = np.random.default_rng(seed)
    obs = agent.observe(some_obs(agent, sum(lengths), rng))
    final = agent.observe(some_obs(agent, len(lengths), rng))
    return rollout_of(obs, final, lengths, terminated=terminated, rng=rng)


def step_of(agent, rng, t=0, end=""):
    """One step of each slot, as `Stepper` gives it; `end`: 'terminated', 'truncated' or neither."""
    n = agent.slots
    one = rollout_of(agent.observe(some_obs(agent, n, rng)), agent.observe(some_obs(agent, n, rng)), [1] * n, rng=rng)
    no = np.zeros(n, bool)
    return dataclasses.replace(
        one, t=np.full(n, t, np.int32), **{name: no | (name == end) for name in ("terminated", "truncated")}
    )


def some_batch(agent, seed=0, count=8):
    rng = np.random.default_rng(seed)
    rows = np.stack([agent.observe(some_obs(agent, count, rng)) for _ in range(agent.stack + 1)], axis=1)
    return Batch(
        rows,
        torch.tensor(rng.uniform(-1, 1, (count, agent.action_dim)), dtype=torch.float32),
        torch.tensor(rng.standard_normal(count), dtype=torch.float32),
        torch.tensor(rng.integers(0, 2, count), dtype=torch.float32),
    )


def values(agent):
    """All that learning may change, copied: parameters (targets too) by name."""
    return {name: p.detach().clone() for name, p in agent.named_parameters()}


def moved(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


# ---- references in float64, from the definitions


def weights_of(module):
    return [p.detach().double().numpy().copy() for p in module.parameters()]


def mlp(weights, x):
    """Linear layers with ReLU between them."""
    for i in range(0, len(weights), 2):
        x = x @ weights[i].T + weights[i + 1]
        x = np.maximum(x, 0) if i + 2 < len(weights) else x
    return x


def gaussian(weights, x, low, high):
    out = mlp(weights, x)
    mu, raw = np.split(out, 2, axis=1)
    return mu, low + (high - low) * (np.tanh(raw) + 1) / 2


def sampled(weights, x, noise, config):
    """(actions, log pi): the Gaussian's density by the change of variables."""
    mu, log_std = gaussian(weights, x, config.log_std_min, config.log_std_max)
    u = mu + np.exp(log_std) * noise
    normal = -(noise**2) / 2 - log_std - np.log(2 * np.pi) / 2
    slope = 1 / np.cosh(u) ** 2 + (1e-6 if config.log_prob == "clipped" else 0)
    return np.tanh(u), (normal - np.log(slope)).sum(1)


def both_q(critic, x, actions):
    both = np.concatenate((x, actions), axis=1)
    return mlp(critic[: len(critic) // 2], both)[:, 0], mlp(critic[len(critic) // 2 :], both)[:, 0]


def codes(convolutions, head, views, squash=False):
    """Convolutions, linear layer, LayerNorm (and tanh), in float64."""
    maps = views.double().permute(0, 3, 1, 2) / 255
    weights = [p.detach().double() for p in convolutions.parameters()]
    for i in range(0, len(weights), 2):
        maps = F.relu(F.conv2d(maps, weights[i], weights[i + 1], stride=1 if i else 2))
    w, b, gain, shift = (p.detach().double() for p in head.parameters())
    y = maps.permute(0, 2, 3, 1).flatten(1) @ w.T + b
    y = (y - y.mean(1, True)) / (y.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt() * gain + shift
    return (y.tanh() if squash else y).numpy()


def slope_of(loss, weights, h=1e-6):
    """d loss / d weights by central differences; `weights` are changed in place and put back."""
    gradients = []
    for w in weights:
        flat, g = w.reshape(-1), np.zeros(w.size)
        for i, kept in enumerate(flat.copy()):
            flat[i] = kept + h
            high = loss()
            flat[i] = kept - h
            g[i] = (high - loss()) / (2 * h)
            flat[i] = kept
        gradients.append(g.reshape(w.shape))
    return gradients


def losses_of(agent, monkeypatch):
    """Make `agent.step` keep (loss, gradients of the named optimisers' parameters) instead of stepping."""
    kept = {}

    def step(loss, *names):
        parameters = [p for name in names for p in agent.optimisers[name].parameters]
        gradients = torch.autograd.grad(loss, parameters)
        kept["+".join(names)] = (loss.item(), [g.detach().numpy().copy() for g in gradients])

    monkeypatch.setattr(agent, "step", step)
    return kept


# ---- what moves


def names_of(agent, *starts):
    return {name for name, _ in agent.named_parameters() if name.startswith(starts)}


def watched(agent, monkeypatch):
    """Record which parameters each step and each move of the targets changed."""
    seen = []

    def wrap(name, label):
        original = getattr(agent, name)

        def watching(*args):
            before = values(agent)
            result = original(*args)
            seen.append((label(args), moved(before, values(agent))))
            return result

        monkeypatch.setattr(agent, name, watching)

    wrap("step", lambda args: "+".join(args[1:]))
    wrap("move_targets", lambda args: "targets")
    return seen
