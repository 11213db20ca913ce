"""Encoders that learn with an agent: network, views, losses and gradients against independent references."""

import copy
import math

import pytest
import torch
from helpers.pixels import frames_of, noise_frames, only_problem, seeded
from pydantic import ValidationError
from torch import nn

from rrl.encoders import AutoencoderCNN, ContrastiveCNN, PixelCNN
from rrl.encoders.autoencoder import quantised
from rrl.encoders.base import Inference
from rrl.encoders.pixel import _relu, windows
from rrl.envs.base import FrameRequest
from rrl.registry import UserError

CLASSES = [PixelCNN, ContrastiveCNN, AutoencoderCNN]


def small(cls, **settings):
    """An encoder of few and small maps."""
    sides = {"render": 24, "crop": 20, "canvas": 30, "filters": 4, "features": 6, "layers": 2}
    return cls(cls.Config(**{**sides, **settings}), cameras=1)


# ---- the network


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(("augmentation", "side", "maps"), [("crop", 84, 35), ("translate", 108, 47)])
def test_sizes_of_the_papers(cls, augmentation, side, maps):
    config = cls.Config(render=100, augmentation=augmentation)
    encoder = cls(config, cameras=1)
    assert config.side == side and config.frames() == FrameRequest(100, 100, 3)
    assert encoder.dim == maps * maps * 32 and encoder.code_dim == 50
    views = noise_frames(2, side)
    assert encoder.trunk(views).shape == (2, encoder.dim)
    assert encoder.convolutions(torch.zeros(1, 9, side, side)).shape == (1, 32, maps, maps)
    assert encoder.head(seeded())(encoder.trunk(views)).shape == (2, 50)


def test_defaults_of_the_papers():
    assert PixelCNN.Config() == PixelCNN.Config(render=100, crop=84, augmentation="crop", stack=3)
    assert AutoencoderCNN.Config().frames() == FrameRequest(84, 84, 3)
    assert AutoencoderCNN.Config().side == 84
    assert not PixelCNN.doubled and ContrastiveCNN.doubled and not AutoencoderCNN.doubled
    assert (ContrastiveCNN.own_weight_decay, AutoencoderCNN.own_weight_decay) == (0, 1e-7)
    assert PixelCNN(PixelCNN.Config(stack=1), cameras=2).channels == 6  # FERM


def test_trunk_is_relu_convolutions_of_values_in_0_to_1():
    encoder = PixelCNN(PixelCNN.Config(), cameras=1)
    encoder.initialise(seeded(3))
    views = noise_frames(2, 84)
    maps = (views.double() / 255).permute(0, 3, 1, 2)
    parameters = [p.double() for p in encoder.trunk_parameters()]
    for i in range(4):
        maps = torch.relu(nn.functional.conv2d(maps, parameters[2 * i], parameters[2 * i + 1], stride=1 if i else 2))
    expected = maps.permute(0, 2, 3, 1).flatten(1)
    torch.testing.assert_close(encoder.trunk(views).double(), expected, rtol=1e-4, atol=1e-5)
    assert len(parameters) == 8


def test_memory_formats_need_no_copies():
    encoder = PixelCNN(PixelCNN.Config(), cameras=1)
    maps = encoder.convolutions(noise_frames(2, 84).permute(0, 3, 1, 2).float())
    assert maps.is_contiguous(memory_format=torch.channels_last)
    weight = copy.deepcopy(encoder).convolutions[2].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("cls", CLASSES)
def test_initial_weights_are_delta_orthogonal(cls):
    encoder = cls(cls.Config(), cameras=1)
    encoder.initialise(seeded(1))
    layers = [m for m in encoder.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(layers) == (8 if cls is AutoencoderCNN else 4)
    for layer in layers:
        centre = layer.weight[:, :, 1, 1].detach().double()
        least = min(centre.shape)
        gram = centre.T @ centre if centre.shape[1] == least else centre @ centre.T
        torch.testing.assert_close(gram, 2 * torch.eye(least, dtype=torch.float64), atol=1e-5, rtol=0)
        others = layer.weight.detach().clone()
        others[:, :, 1, 1] = 0
        assert not others.any() and not layer.bias.any()


def test_linear_layers_are_orthogonal_and_heads_are_fresh():
    encoder = AutoencoderCNN(AutoencoderCNN.Config(), cameras=1)
    head = encoder.head(seeded(1))
    again, other = encoder.head(seeded(1)), encoder.head(seeded(2))
    weight = head[0].weight.detach().double()
    torch.testing.assert_close(weight @ weight.T, torch.eye(50, dtype=torch.float64), atol=1e-5, rtol=0)
    decoder = encoder.objective.linear.weight.detach().double()
    torch.testing.assert_close(decoder.T @ decoder, torch.eye(50, dtype=torch.float64), atol=1e-5, rtol=0)
    assert torch.equal(head[0].weight, again[0].weight) and not torch.equal(head[0].weight, other[0].weight)
    assert not head[0].bias.any() and not encoder.objective.linear.bias.any()


@pytest.mark.parametrize("cls", CLASSES)
def test_head_normalises_and_only_the_autoencoder_squashes(cls):
    encoder = small(cls)
    head = encoder.head(seeded())
    x = torch.randn(5, encoder.dim, generator=seeded(1))
    y = x.double() @ head[0].weight.double().T
    expected = (y - y.mean(1, True)) / (y.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    expected = expected.tanh() if cls is AutoencoderCNN else expected
    torch.testing.assert_close(head(x).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cls", CLASSES)
def test_mixed_precision_is_bf16_up_to_the_heads_linear_layer(cls):
    encoder, head = small(cls, filters=8), small(cls, filters=8).head(seeded(1))
    encoder.initialise(seeded(2))
    views = noise_frames(16, encoder.config.side)
    gradients = []
    for encoder.mixed in (False, True):
        maps = encoder.trunk(views)
        assert maps.dtype == (torch.bfloat16 if encoder.mixed else torch.float32)
        codes = head(maps)
        assert codes.dtype == torch.float32
        weights = [*encoder.trunk_parameters(), *head.parameters()]
        assert {p.dtype for p in weights} == {torch.float32}
        found = torch.autograd.grad((codes * codes.detach().roll(1, 0)).sum(), weights)
        gradients.append((codes.detach(), *found))
    assert copy.deepcopy(encoder).mixed
    for exact, mixed in zip(*gradients, strict=True):
        error = ((mixed - exact).norm() / exact.norm()).item()
        assert 0 < error < 0.05, error  # bf16 has 8 bits: 0.4 % of each number


def test_the_decoder_learns_the_same_in_bf16():
    encoder = small(AutoencoderCNN, filters=8)
    encoder.initialise(seeded(2))
    head, views = encoder.head(seeded(1)), noise_frames(16, encoder.config.side)
    found = []
    for encoder.mixed in (False, True):
        loss = encoder.loss(lambda v: head(encoder.trunk(v)), None, views, views, seeded(3))
        found.append((loss, *torch.autograd.grad(loss, encoder.own_parameters())))
        assert loss.dtype == torch.float32
    for exact, mixed in zip(*found, strict=True):
        assert 0 < (mixed - exact).norm() < 0.1 * exact.norm()


def test_relu_of_bf16_is_torchs():
    x = torch.randn(3, 4, 5, 6, generator=seeded()).to(memory_format=torch.channels_last).bfloat16()
    x[0, :2, 0, 0] = torch.tensor([0.0, -0.0])
    upper = torch.randn(x.shape, generator=seeded(1)).bfloat16()
    found = []
    for relu in (torch.relu, _relu):
        leaf = x.clone().requires_grad_()
        y = relu(leaf * 1)
        found.append((y, *torch.autograd.grad(y, leaf, upper)))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert (found[0][0] == 0).any() and (found[0][1] != 0).any()


@pytest.mark.parametrize("cls", CLASSES)
def test_weights_are_the_generators(cls):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = small(cls), small(cls)
    first.head(seeded())
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    second.initialise(seeded(9))
    drawn = [(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True) if b.any()]
    assert len(drawn) > 1 and not any(torch.equal(a, b) for a, b in drawn)
    first.initialise(seeded(9))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


# ---- views


def find_window(frame, window):
    """Every (top, left) at which `window` is a part of `frame`, by trying all."""
    side, last = window.shape[0], frame.shape[0] - window.shape[0]
    return [
        (top, left)
        for top in range(last + 1)
        for left in range(last + 1)
        if torch.equal(frame[top : top + side, left : left + side], window)
    ]


@pytest.mark.parametrize(("cls", "last"), [(PixelCNN, 4), (ContrastiveCNN, 3)])
def test_crops_are_windows_at_offsets_of_their_own(cls, last):
    encoder = small(cls)
    frames = noise_frames(300, 24)
    after = noise_frames(300, 24, seed=1)
    offsets = []
    for stack, views in zip((frames, after), encoder.augment(frames, after, generator=seeded()), strict=True):
        assert views.shape == (300, 20, 20, 9) and views.dtype == torch.uint8
        # the whole stack, all its 9 channels, is one window
        found = [find_window(frame, view) for frame, view in zip(stack, views, strict=True)]
        assert all(len(where) == 1 for where in found)
        offsets += [torch.tensor(found)[:, 0]]
    for drawn in offsets:
        assert drawn.amin(0).tolist() == [0, 0] and drawn.amax(0).tolist() == [last, last]
    pairs = torch.stack([*offsets[0].T, *offsets[1].T]).double()
    correlation = torch.corrcoef(pairs) - torch.eye(4)
    assert correlation.abs().max() < 0.25  # 4.3 standard errors: s, s', height and width are independent


def test_translations_are_shared_and_keep_the_content():
    encoder = small(PixelCNN, augmentation="translate")
    frames, after = noise_frames(200, 24), noise_frames(200, 24, seed=1)
    placed, placed_after = encoder.augment(frames, after, generator=seeded())
    assert placed.shape == (200, 30, 30, 9) and placed.dtype == torch.uint8
    seen = set()
    for i in range(200):
        rows, columns = placed[i].any(-1).nonzero().T
        top, left = rows.min().item(), columns.min().item()
        seen.add((top, left))
        for view, frame in ((placed[i], frames[i]), (placed_after[i], after[i])):
            inside = view[top : top + 24, left : left + 24]
            assert torch.equal(inside, frame)
            assert view.long().sum() == frame.long().sum()  # black outside
    assert {top for top, _ in seen} == {left for _, left in seen} == set(range(7))


def test_the_centre_is_the_view():
    frames = noise_frames(2)
    assert torch.equal(PixelCNN(PixelCNN.Config(), 1).view(frames), frames[:, 8:92, 8:92])
    placed = PixelCNN(PixelCNN.Config(render=100, augmentation="translate"), 1).view(frames)
    assert placed.shape == (2, 108, 108, 9) and torch.equal(placed[:, 4:104, 4:104], frames)
    assert placed.long().sum() == frames.long().sum()
    plain = AutoencoderCNN(AutoencoderCNN.Config(), 1)
    frames = noise_frames(2, 84)
    assert torch.equal(plain.view(frames), frames)
    assert all(torch.equal(v, frames) for v in plain.augment(frames, frames, generator=seeded()))


@pytest.mark.parametrize(
    ("given", "render", "centre"),
    [
        ({}, 108, 100),  # RAD's
        ({"canvas": 120}, 120, 100),
        ({"centre": 90}, 108, 90),
        ({"render": 104}, 104, 104),  # the whole frame, as it was before there was a centre
        ({"render": 104, "centre": 90}, 104, 90),
        ({"render": 120, "centre": 90}, 120, 90),
    ],
)
def test_what_is_placed_on_the_canvas(given, render, centre):
    encoder = PixelCNN(PixelCNN.Config(augmentation="translate", **given), 1)
    config = encoder.config
    assert (config.render, config.centre) == (render, centre)
    frames = noise_frames(2, render)
    start, margin = (render - centre) // 2, (config.canvas - centre) // 2
    inner = frames[:, start : start + centre, start : start + centre]
    view, (random,) = encoder.view(frames), encoder.augment(frames, generator=seeded())
    assert torch.equal(view[:, margin : margin + centre, margin : margin + centre], inner)
    assert view.long().sum() == random.long().sum() == inner.long().sum()
    exploring = encoder.view(frames, exploring=True)
    margin = (render - config.canvas) // 2  # RAD's code cuts larger frames, were there any
    whole = frames[:, margin : margin + config.canvas, margin : margin + config.canvas]
    assert torch.equal(exploring, whole if render >= config.canvas else view)


@pytest.mark.parametrize("augmentation", ["crop", "translate"])
def test_views_repeat_under_a_generator_and_leave_the_frames_alone(augmentation):
    encoder = small(PixelCNN, augmentation=augmentation)
    frames = noise_frames(8, 24)
    kept = frames.clone()
    first, second = (encoder.augment(frames, generator=seeded(4))[0] for _ in range(2))
    assert torch.equal(first, second) and torch.equal(frames, kept)
    assert not torch.equal(first, encoder.augment(frames, generator=seeded(5))[0])
    part = noise_frames(8, 30)[:, 3:27, 3:27]  # not contiguous
    views = encoder.augment(part, generator=seeded(4))
    assert torch.equal(views[0], encoder.augment(part.contiguous(), generator=seeded(4))[0])


def test_windows_reach_the_last_pixel():
    frames = noise_frames(3, 24)
    at = torch.tensor([0, 4, 4]), torch.tensor([4, 0, 4])
    expected = [frames[0, 0:20, 4:24], frames[1, 4:24, 0:20], frames[2, 4:24, 4:24]]
    assert torch.equal(windows(frames, 20, *at), torch.stack(expected))


def test_other_pictures_are_errors():
    encoder = PixelCNN(PixelCNN.Config(), cameras=1)
    for wrong in (noise_frames(1, 84), noise_frames(1, channels=3), noise_frames(1).float()):
        for use in (encoder, encoder.view, lambda x: encoder.augment(x, generator=seeded())):
            with pytest.raises(ValueError, match=r"takes uint8 \[N, 100, 100, 9\]"):
                use(wrong)
    with pytest.raises(ValueError, match=r"takes uint8 \[N, 84, 84, 9\]"):
        encoder.trunk(noise_frames(1))


# ---- losses


def codes(encoder, head):
    return lambda views: head(encoder.trunk(views))


@pytest.mark.parametrize("augmentation", ["crop", "translate"])
def test_contrastive_loss_is_infonce(augmentation):
    encoder = small(ContrastiveCNN, augmentation=augmentation)
    target = copy.deepcopy(encoder)
    target.initialise(seeded(8))
    head, target_head = encoder.head(seeded(1)), target.head(seeded(2))
    frames = frames_of(encoder, 7)
    (anchor,) = encoder.augment(frames, generator=seeded(3))
    loss = encoder.loss(codes(encoder, head), codes(target, target_head), anchor, frames, seeded(4))
    (other,) = encoder.augment(frames, generator=seeded(4))
    assert not torch.equal(anchor, other)
    q = head(encoder.trunk(anchor)).detach().double()
    k = target_head(target.trunk(other)).detach().double()
    (w,) = (p.detach().double() for p in encoder.own_parameters())
    rows = []
    for i in range(7):
        logits = [float(q[i] @ w @ k[j]) for j in range(7)]
        most = max(logits)
        rows.append(most + math.log(sum(math.exp(logit - most) for logit in logits)) - logits[i])
    assert loss.item() == pytest.approx(sum(rows) / 7, rel=1e-4)
    assert loss.item() > 0.1


def test_the_contrastive_matrix_is_uniform():
    encoder = ContrastiveCNN(ContrastiveCNN.Config(), cameras=1)
    (w,) = encoder.own_parameters()
    assert w.shape == (50, 50) and 0 <= w.min() < 0.01 < 0.99 < w.max() < 1
    assert w.mean().item() == pytest.approx(0.5, abs=0.025) and w.var().item() == pytest.approx(1 / 12, abs=0.01)


def test_quantised_pictures_keep_five_bits():
    views = torch.arange(256, dtype=torch.uint8).repeat(2000, 1)
    target = quantised(views, seeded())
    assert target.dtype == torch.float32 and -0.5 <= target.min() < target.max() <= 0.5
    noise = (target.double() + 0.5) * 32 - torch.tensor([v // 8 for v in range(256)])
    assert noise.min() > -1e-5 and noise.max() < 1 + 1e-5
    assert noise.mean().item() == pytest.approx(0.5, abs=2e-3)  # 5 standard errors
    assert noise.var().item() == pytest.approx(1 / 12, abs=1e-3)
    assert torch.equal(target, quantised(views, seeded()))
    assert not torch.equal(target, quantised(views, seeded(1)))


@pytest.mark.parametrize("side", [84, 21])
def test_the_decoder_gives_pictures_of_the_views_size(side):
    encoder = AutoencoderCNN(AutoencoderCNN.Config(render=side), cameras=2)
    assert encoder.objective(torch.zeros(3, 50)).shape == (3, side, side, 18)


def test_reconstruction_loss_by_hand():
    encoder = small(AutoencoderCNN)
    head = encoder.head(seeded(1))
    anchor = frames_of(encoder, 5)
    loss = encoder.loss(codes(encoder, head), None, anchor, anchor, seeded(4))
    h = head(encoder.trunk(anchor)).detach().double()
    decoder = encoder.objective
    maps = torch.relu(h @ decoder.linear.weight.double().T + decoder.linear.bias)
    maps = maps.view(5, encoder.config.map_side, encoder.config.map_side, 4).permute(0, 3, 1, 2)
    first, last = (m for m in decoder.transposed if isinstance(m, nn.ConvTranspose2d))
    maps = torch.relu(nn.functional.conv_transpose2d(maps, first.weight.double(), first.bias.double()))
    pictures = nn.functional.conv_transpose2d(
        maps, last.weight.double(), last.bias.double(), stride=2, output_padding=1
    )
    target = quantised(anchor, seeded(4)).double().permute(0, 3, 1, 2)
    squares = sum(float((pictures[i].detach() - target[i]).square().sum()) for i in range(5)) / target.numel()
    penalty = sum(0.5 * float(h[i] @ h[i]) for i in range(5)) / 5
    assert loss.item() == pytest.approx(squares + 1e-6 * penalty, rel=3e-6)  # the penalty: 1.5e-5 of it


@pytest.mark.parametrize("cls", [ContrastiveCNN, AutoencoderCNN])
def test_losses_train_encoder_head_and_their_own(cls):
    encoder = small(cls)
    target = copy.deepcopy(encoder)
    head, target_head = encoder.head(seeded(1)), encoder.head(seeded(2))
    frames = frames_of(encoder, 6)
    (anchor,) = encoder.augment(frames, generator=seeded(3))
    loss = encoder.loss(codes(encoder, head), codes(target, target_head), anchor, frames, seeded(4))
    loss.backward()
    own = {id(p) for p in encoder.own_parameters()}
    trunk = {id(p) for p in encoder.trunk_parameters()}
    assert own and trunk and not own & trunk
    assert own | trunk == {id(p) for p in encoder.parameters()}
    for p in [*encoder.parameters(), *head.parameters()]:
        assert p.grad is not None and p.grad.any()
    assert all(p.grad is None for p in [*target.parameters(), *target_head.parameters()])


@pytest.mark.parametrize(("cls", "to"), [(ContrastiveCNN, 0.3), (AutoencoderCNN, 0.8)])
def test_losses_fall(cls, to):
    """A few Adam steps on one batch: the gradients point where they should."""
    encoder = small(cls, filters=8, features=20)
    head = encoder.head(seeded(1))
    generator = seeded(3)
    colours = torch.randint(0, 220, (8, 1, 1, 9), dtype=torch.uint8, generator=generator)
    frames = frames_of(encoder, 8) // 8 + colours  # told apart by colours, whatever the window
    optimiser = torch.optim.Adam([*encoder.parameters(), *head.parameters()], 3e-3)
    found = []
    for _ in range(60):
        (anchor,) = encoder.augment(frames, generator=generator)
        loss = encoder.loss(codes(encoder, head), codes(encoder, head), anchor, frames, generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(loss.item())
    assert sum(found[-10:]) < to * sum(found[:10])


def test_rad_has_no_loss_of_its_own():
    encoder = small(PixelCNN)
    frames = frames_of(encoder, 2)
    assert encoder.loss(None, None, encoder.view(frames), frames, seeded()) is None
    assert encoder.own_parameters() == []
    assert len(encoder.trunk_parameters()) == len(list(encoder.parameters()))


# ---- configs and inference


@pytest.mark.parametrize(
    ("cls", "settings", "words"),
    [
        (PixelCNN, {"crop": 100}, "PixelCNN.crop is 100, but the frames to be cut have 100 pixels"),
        (PixelCNN, {"render": 84}, "PixelCNN.crop is 84"),
        (ContrastiveCNN, {"augmentation": "translate", "canvas": 90}, "ContrastiveCNN.canvas is 90"),
        (PixelCNN, {"augmentation": "translate", "render": 108}, "PixelCNN.canvas is 108, but what is to be placed on"),
        (
            PixelCNN,
            {"augmentation": "translate", "render": 90, "centre": 100},
            "PixelCNN.centre is 100, but the frames",
        ),
        (PixelCNN, {"crop": 14}, "views of 14 pixels are too small for 4 convolutions"),
        (AutoencoderCNN, {"render": 14}, "views of 14 pixels are too small"),
        (AutoencoderCNN, {"render": 0}, "greater than 0"),
        (ContrastiveCNN, {"augmentation": "none"}, "'crop' or 'translate'"),
    ],
)
def test_sides_must_fit(cls, settings, words):
    with pytest.raises(ValidationError, match=words):
        cls.Config(**settings)
    assert PixelCNN(PixelCNN.Config(crop=15), 1).dim == 32  # the smallest: maps of 1 x 1


def test_mistakes_of_sides_are_located_in_gin_files():
    problem = only_problem("Experiment.encoder = @PixelCNN()\nPixelCNN.crop = 120\n")
    assert problem.startswith("x.gin:2: PixelCNN.crop is 120") and "PixelCNN.crop <" in problem


@pytest.mark.parametrize("how", [Inference(precision="bf16"), Inference(backend="openvino")])
def test_inference_is_torch_in_float32(how):
    with pytest.raises(UserError, match=r"PixelCNN can't compute by.*Experiment.backend"):
        small(PixelCNN).inference(how)


def test_inference_follows_the_weights():
    encoder = small(PixelCNN)
    frames = frames_of(encoder, 3)
    features = encoder.inference(Inference())
    before = features(frames)
    encoder.initialise(seeded(7))
    assert not torch.equal(features(frames), before) and not features(frames).requires_grad
    assert torch.equal(features(frames), encoder(frames))


@pytest.mark.parametrize("cls", [PixelCNN, ContrastiveCNN, AutoencoderCNN])
def test_what_says_that_it_has_a_loss_learns_by_it(cls):
    assert cls.has_loss == bool(cls(cls.Config(), cameras=1).own_parameters())
