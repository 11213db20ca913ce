"""The plain RLPD of `rrl bench updates` does the same mathematics as the agent."""

import pytest
import torch

from rrl.bench import rlpd
from rrl.bench.measure import reference


@pytest.mark.parametrize("actor", [False, True])
def test_the_plain_form_makes_the_same_step(actor):
    agent = rlpd.agent(3)
    with torch.no_grad():
        agent.log_alpha.zero_()
    made = reference("reference_rlpd").Plain(rlpd.STATE, rlpd.ACTIONS, 3, rlpd.HIDDEN)
    made.actor.load_state_dict(agent.actor.mlp.state_dict())
    critic = agent.online["critic"]
    for networks in (made.critics, made.targets):
        copy_into(networks, critic)
    batch, noises = rlpd.transitions(), torch.randn(2, rlpd.BATCH, rlpd.ACTIONS)
    now, actions, rewards, not_done, after = batch
    drawn = (noises[0], torch.tensor([2, 0]), *([noises[1]] if actor else []))
    agent._learn_networks(actor, True, None, now, None, after, actions, rewards, not_done, *drawn)
    made.update(*batch, tuple(noises), [2, 0], actor=actor)
    torch.testing.assert_close(dict(agent.actor.mlp.named_parameters()), dict(made.actor.named_parameters()))
    torch.testing.assert_close(agent.log_alpha.detach(), made.log_alpha.detach())
    for plain, ours in ((made.critics, critic), (made.targets, agent.target["critic"])):
        linear = [[m for m in network if isinstance(m, torch.nn.Linear)] for network in plain]
        for i, weights in enumerate(ours.weights):
            expected = torch.stack([layers[i].weight.detach().t() for layers in linear])
            assert (weights.detach() - expected).abs().mean() < 1e-5  # Adam's first step is 3e-4 whatever the gradient


def copy_into(networks, ensemble):
    for e, network in enumerate(networks):
        linear = [m for m in network if isinstance(m, torch.nn.Linear)]
        for layer, weight, bias in zip(linear, ensemble.weights, ensemble.biases, strict=True):
            layer.weight.data.copy_(weight[e].detach().t())
            layer.bias.data.copy_(bias[e, 0].detach())
