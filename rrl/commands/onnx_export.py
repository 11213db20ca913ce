"""`rrl export --onnx`: a frozen encoder, or it and a policy's mean action, as one ONNX graph."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import rrl
from rrl.agents.base import Agent
from rrl.commands.policies import locate
from rrl.commands.typed import is_gin
from rrl.config import ginfile
from rrl.encoders.base import Encoder
from rrl.envs.base import EnvFactory, FrameRequest
from rrl.machine.paths import new_file
from rrl.registry import UserError, build
from rrl.run import policies
from rrl.store.files import writing

Say = Callable[[str], None]
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
CLOSE = 1e-4
"""How far onnxruntime may be from torch: the length of the difference over the length."""
LARGEST = 2**31 - 1
"""Bytes of a protobuf file."""


def export(source: str, out: Path, say: Say, *, best: bool = False) -> None:
    """Write it, once onnxruntime has computed the same as torch. A policy file, a shipped policy or a run gives encoder
    and policy; a gin file, if it isn't called as a shipped policy, its encoder alone. UserError where a package is
    missing, or where this encoder or agent can't be a graph of one observation."""
    new_file(out)
    if out.suffix != ".onnx":
        raise UserError(f"an ONNX graph is an .onnx; got {out}")
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise UserError(f"an ONNX export needs the package {' and '.join(missing)}: pip install 'rrl[onnx]'")
    from_file = is_gin(source) and source not in policies.shipped()
    graph, inputs, facts = _of_file(source) if from_file else _of_policy(source, best)
    with torch.no_grad():
        proto = _exported(graph, inputs, facts)
        worst = _compared(graph, inputs, proto)
    if not worst <= CLOSE:
        raise UserError(
            f"onnxruntime is {worst:.1e} away from torch (relative), more than {CLOSE:.0e}: nothing is written"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with writing(out) as file:
        file.write(proto)
    say(f"{out}: {out.stat().st_size / 1e6:.2f} MB, {facts['what']}")
    say(f"inputs: {', '.join(f'{name} ({facts[name]})' for name in inputs)}")
    if "frames" in inputs and facts.get("trained_in") in ("bf16", "int8"):
        say(f"note: the run's features were {facts['trained_in']}; the graph's are fp32, and so a little different")
    say(f"output: {graph.output} ({facts[graph.output]}); onnxruntime is {worst:.1e} away from torch (relative)")


class Graph(nn.Module):
    """What is exported: `forward` takes the inputs in their order."""

    def __init__(self, encoder: Encoder, agent: Agent | None = None) -> None:
        super().__init__()
        self.encoder, self.agent = encoder, agent
        self.output = "features" if agent is None else "action"

    def forward(self, *inputs: Tensor) -> Tensor:
        """`frames` uint8 [N, H, W, 3 * cameras * stack], where the encoder sees any, and `state` float32 [N, p] beside
        an agent -> features [N, dim], or mean actions [N, m]."""
        if self.agent is None:
            features: Tensor = self.encoder(inputs[0])
            return features
        rows = [self.encoder(inputs[0]), inputs[1]] if len(inputs) == 2 else [inputs[0]]
        return self.agent.mean_action(torch.cat(rows, dim=1))


Inputs = Mapping[str, Tensor]


def _of_file(source: str) -> tuple[Graph, Inputs, dict[str, str]]:
    if ginfile.holds(source, "Experiment.env"):
        run: Any = ginfile.load(source)
        config, env = run.encoder, build(run.env)
    else:
        config, env = ginfile.bound(source, "encoder"), None
    encoder, facts = _encoder(config, env)
    frames = config.frames()
    if frames is None:
        raise UserError(f"{config.label()} sees no pictures: there is nothing to export")
    facts |= {"what": f"the encoder {facts['encoder']}", "features": f"float32 [batch, {encoder.dim}]"}
    return Graph(encoder).eval(), {"frames": _pictures(frames, encoder.cameras)}, facts


def _of_policy(source: str, best: bool) -> tuple[Graph, Inputs, dict[str, str]]:
    path = locate(source, best)
    config, agent, values = policies.load(path)
    encoder, facts = _encoder(config.encoder, build(config.env))
    agent = agent.cpu()
    frames, state_dim = config.encoder.frames(), values["state_dim"]
    state = torch.randn(3, state_dim, generator=torch.Generator().manual_seed(0))
    inputs = ({} if frames is None else {"frames": _pictures(frames, encoder.cameras)}) | {"state": state}
    graph = Graph(encoder, agent).eval()
    with torch.no_grad():
        action = graph(*inputs.values())  # UserError of agents that aren't a function of one observation
    facts |= {
        "what": f"the mean action of {facts['encoder']} and {config.agent.label()}",
        "agent": config.agent.label(),
        "trained_in": config.precision,
        "updates": str(values.get("iteration", 0)),
        "run": str(values.get("run", "")),
        "state": f"float32 [batch, {state_dim}]",
        "action": f"float32 [batch, {action.shape[1]}], the mean action: the environment clips it to [-1, 1]",
    }
    return graph, inputs, facts


def _encoder(config: Any, env: EnvFactory | None) -> tuple[Encoder, dict[str, str]]:
    """A frozen encoder on the CPU, and what the file says of it. Without an environment it gets one camera's
    picture."""
    if config.component.trainable:
        name = config.component.__name__
        raise UserError(
            f"{name} was trained with its agent, which chooses from pictures: such a policy has no ONNX export. Its "
            "encoder has: rrl export RUN --encoder FILE, then a gin file with it as a frozen one"
        )
    cameras = env.cameras if env else ("any",)
    encoder: Encoder = build(config, cameras=len(cameras))
    facts = {"rrl": rrl.__version__, "encoder": config.label(), **encoder.identity()}
    facts |= {"env": env.name} if env else {}
    frames = config.frames()
    if frames is not None:
        facts["frames"] = _contract(frames, cameras)
    return encoder, facts


def _contract(frames: FrameRequest, cameras: tuple[str, ...]) -> str:
    channels = 3 * len(cameras) * frames.stack
    text = f"uint8 [batch, {frames.size}, {frames.size}, {channels}], RGB, cameras {', '.join(cameras)}"
    text += f", the centre of {frames.crop_from} pixels" if frames.crop_from != frames.size else ""
    return text + (f", the latest {frames.stack} of each episode, oldest first" if frames.stack > 1 else "")


def _pictures(frames: FrameRequest, cameras: int) -> Tensor:
    """Three smooth random ones, uint8 [3, H, W, 3 * cameras * stack]: as pictures are, and noise isn't."""
    coarse = torch.rand(3, 3 * cameras * frames.stack, 6, 6, generator=torch.Generator().manual_seed(0))
    fine = nn.functional.interpolate(coarse, (frames.size, frames.size), mode="bicubic").clamp(0, 1) * 255
    return fine.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _exported(graph: Graph, inputs: Inputs, facts: Mapping[str, str]) -> bytes:
    """The graph with a batch of any size, and the facts as its metadata. UserError with torch's reason."""
    with _quietly():
        program: Any = torch.onnx.export(
            _traced(graph, inputs, facts["what"]),
            input_names=list(inputs),
            output_names=[graph.output],
            dynamo=True,
            verbose=False,
        )
    proto = program.model_proto
    for name, value in facts.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = name, value
    if proto.ByteSize() > LARGEST:
        raise UserError(f"{facts['what']} takes {proto.ByteSize() / 1e9:.1f} GB, and an ONNX file holds 2")
    return bytes(proto.SerializeToString())


def _traced(graph: Graph, inputs: Inputs, what: str) -> torch.export.ExportedProgram:
    batch, given = torch.export.Dim("batch"), tuple(inputs.values())
    shapes = (tuple({0: batch} for _ in given),)
    try:
        return torch.export.export(graph, given, dynamic_shapes=shapes, strict=False)
    except Exception:  # it takes `len(frames)` for a constant; dynamo, which is slower, doesn't
        try:
            return torch.export.export(graph, given, dynamic_shapes=shapes, strict=True)
        except Exception as error:  # whatever a forward raises that can't be traced
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise UserError(f"torch.export can't trace {what}: {reason}") from error


def _compared(graph: Graph, inputs: Inputs, proto: bytes) -> float:
    """How far onnxruntime is from torch, relative, at worst: of one observation, and of all."""
    import onnxruntime

    session = onnxruntime.InferenceSession(proto, providers=["CPUExecutionProvider"])

    def distance(count: int) -> float:
        here = {name: tensor[:count] for name, tensor in inputs.items()}
        (theirs,) = session.run([graph.output], {name: tensor.numpy() for name, tensor in here.items()})
        ours: NDArray[np.float32] = graph(*here.values()).numpy()
        return float(np.linalg.norm(theirs - ours) / max(float(np.linalg.norm(ours)), 1e-12))

    return max(distance(1), distance(len(next(iter(inputs.values())))))


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what torch's exporter tells of itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
