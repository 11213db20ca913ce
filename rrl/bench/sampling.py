"""`rrl bench sampling`: environment steps per second from pixels, against a loop of the original's shape.

Every pipeline waits in a process of its own, with the workers and threads that a run of that configuration
would have, and works on command: so all can be timed in turn.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TextIO

import numpy as np
import pydantic

from rrl import registry
from rrl.bench.measure import REFERENCE, Case, Entry, Sample, interleave, reference
from rrl.config.refusals import refusals
from rrl.envs.adroit import Adroit
from rrl.envs.base import EnvFactory, FrameRequest
from rrl.envs.vector import WorkerVectorEnv
from rrl.machine.processes import python
from rrl.registry import UserError, build

UNIT = "steps_per_second"
NUM_ENVS = 25
"""As in the shipped gin files."""
OF_A_FILE = 4
"""Environments of `--env`: some take seconds to make, and all pipelines are there at once."""


@dataclass(frozen=True)
class Pipeline:
    """One way from simulator to action. Kind `run`: as `rrl run` collects; `reference`: the original's shape;
    `render`: ours without network; `physics`: ours without pictures."""

    kind: str
    task: str
    encoder: str
    look: str
    precision: str = "fp32"
    backend: str = "torch"
    env: str = ""
    """A gin file, or a part of one, whose environment it is, as it is set there; empty: Adroit's `task`."""

    @property
    def envs(self) -> int:
        """How many environments."""
        return OF_A_FILE if self.env else NUM_ENVS

    def name(self) -> str:
        """As in the table."""
        if self.kind == "run":
            return f"{self.encoder} {self.look} {self.backend} {self.precision}"
        if self.kind == "reference":
            return f"{REFERENCE} {self.encoder}"
        return f"{self.kind} only" + (f" {self.look}" if self.kind == "render" else "")


def pipelines(
    task: str, encoders: Sequence[str], looks: Sequence[str], ways: Sequence[tuple[str, str]], env: str = ""
) -> list[Pipeline]:
    """The reference of each encoder (of Adroit's tasks), its combinations, the ceilings. `ways`: (backend,
    precision)."""
    chosen = []
    for encoder in encoders:
        if not env:
            chosen.append(Pipeline("reference", task, encoder, "default"))
        chosen += [
            Pipeline("run", task, encoder, look, precision, backend, env)
            for look in looks
            for backend, precision in ways
        ]
    chosen += [Pipeline("render", task, "none", look, env=env) for look in looks]
    return [*chosen, Pipeline("physics", task, "none", "none", env=env)]


def measure(chosen: Sequence[Pipeline], repeats: int, seconds: float, progress: Callable[[str], None]) -> list[Entry]:
    """Time all pipelines in turn, each for about `seconds` per repeat."""
    with ExitStack() as stack:
        cases = []
        for pipeline in chosen:
            progress(f"preparing {pipeline.name()}")
            ask = stack.enter_context(_process(pipeline, seconds))
            reference = pipeline.kind == "run" and not pipeline.env
            cases.append(
                Case(
                    pipeline.name(),
                    lambda ask=ask: Sample(**ask()),  # type: ignore[misc]
                    {**asdict(pipeline)},
                    f"{REFERENCE} {pipeline.encoder}" if reference else "",
                )
            )
        return interleave(cases, repeats, UNIT, progress)


@contextmanager
def _process(pipeline: Pipeline, seconds: float) -> Iterator[Callable[[], dict[str, Any]]]:
    command = python("from rrl.bench.sampling import main; main()", json.dumps([asdict(pipeline), seconds]))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None

        def line() -> str:
            assert child.stdout is not None
            text = child.stdout.readline()
            if not text:
                raise UserError(f"the benchmark of {pipeline.name()} ended early; its message is above")
            return text

        def ask() -> dict[str, Any]:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
            answer: dict[str, Any] = json.loads(line())
            return answer

        line()  # ready
        yield ask  # afterwards the child's input ends, and so does the child


# --- in the child process ---------------------------------------------------------------------------

Work = Callable[[int], Sample]
"""Makes about so many steps of each environment."""


def serve(pipeline: Pipeline, seconds: float, answers: TextIO) -> None:
    """Prepare, then time one repeat of about `seconds` per line of standard input."""
    kinds = {"reference": _reference, "run": _run, "render": _ceiling, "physics": _ceiling}
    with ExitStack() as stack:
        work = kinds[pipeline.kind](pipeline, stack)
        work(2)  # first calls load code and allocate
        start = time.perf_counter()
        work(3)
        length = max(3, round(3 * seconds / (time.perf_counter() - start)))
        answers.write("ready\n")
        answers.flush()
        for _ in sys.stdin:
            answers.write(json.dumps(asdict(work(length))) + "\n")
            answers.flush()


def _reference(pipeline: Pipeline, stack: ExitStack) -> Work:
    from rrl.envs import adroit_scene, gl

    gl.context()  # loads libraries in an order that works
    env = _env(pipeline)
    encoder: Any = build(encoder_config(pipeline.encoder), cameras=1)
    model = adroit_scene.model(pipeline.task, "paper")
    loop = reference("reference_sampling").Loop(model, env.cameras, encoder.network, encoder.dim)
    stack.callback(loop.close)

    def work(length: int) -> Sample:
        spent = loop.run(length)
        return Sample(length / sum(spent.values()), spent)

    return work


def _run(pipeline: Pipeline, stack: ExitStack) -> Work:
    """What `rrl run` does to collect, with demonstrations' lengths and actions replaced by random ones."""
    import torch
    from rich.console import Console

    from rrl.machine.console import Display
    from rrl.rollout.data import Episode
    from rrl.rollout.episodes import Collector
    from rrl.run.experiment import Experiment
    from rrl.run.placement import resolve

    experiment = Experiment(
        resolve(
            Experiment.Config(
                env=_env(pipeline).config,  # type: ignore[arg-type]
                encoder=encoder_config(pipeline.encoder),
                agent=config_of("NPG"),  # acts as DAPG
                iterations=0,
                num_envs=pipeline.envs,
                precision=pipeline.precision,  # type: ignore[arg-type]
                backend=pipeline.backend,
            )
        )
    )
    config = experiment.config
    assert config.threads is not None
    assert config.workers is not None
    envs = WorkerVectorEnv(experiment.env, pipeline.envs, experiment.frames, config.workers)
    stack.callback(envs.close)
    torch.set_num_threads(config.threads)
    collector = Collector(envs, config.groups or 1)
    inference = experiment.make_inference(collector, Display(Console(file=io.StringIO())))
    agent = experiment.make_agent(experiment.encoder, collector.envs, inference, 0)
    rng = np.random.default_rng(0)

    def work(length: int) -> Sample:
        # Scripts of any length in place of the horizon; the policy acts all the same.
        script = 0.3 * rng.standard_normal((length, envs.action_dim), np.float32)
        marks: list[tuple[float, int]] = []
        rollout = collector.collect(
            agent,
            [Episode(seed, actions=script) for seed in range(pipeline.envs)],
            progress=lambda count: marks.append((time.perf_counter(), count)),
        )
        # From the first finished step on: the reset comes once in a whole episode.
        rate = sum(count for _, count in marks[1:]) / (marks[-1][0] - marks[0][0])
        spent = {name: float(value) for name, value in rollout.seconds.items() if name != "total"}
        return Sample(rate, spent)

    return work


def _ceiling(pipeline: Pipeline, stack: ExitStack) -> Work:
    """All cores on simulation, with or without pictures, and nothing else."""
    from rrl.machine.cores import cores

    frames = FrameRequest(224, 256) if pipeline.kind == "render" else None
    envs = WorkerVectorEnv(_env(pipeline), pipeline.envs, frames, cores())
    stack.callback(envs.close)
    rng = np.random.default_rng(0)
    envs.reset(seed=0)

    def work(length: int) -> Sample:
        spent = np.zeros(2)
        start = time.perf_counter()
        for _ in range(length):
            action = 0.3 * rng.standard_normal((pipeline.envs, envs.action_dim), np.float32)
            envs.step(action)
            result = envs.results()
            spent += result["seconds"].sum(0)
            if (result["terminated"] | result["truncated"]).any():  # some fail if they are stepped on
                begun = time.perf_counter()
                envs.reset(seed=0)
                start += time.perf_counter() - begun
        wall = time.perf_counter() - start
        return Sample(length * pipeline.envs / wall, {"simulate": float(spent[0]), "render": float(spent[1])})

    return work


def _env(pipeline: Pipeline) -> EnvFactory:
    if pipeline.env:
        env: EnvFactory = build(env_config(pipeline.env))
        return env
    look = "fast" if pipeline.look == "none" else pipeline.look
    return Adroit(Adroit.Config(task=pipeline.task, look=look))  # type: ignore[arg-type]


def env_config(name: str) -> Any:
    """The environment of a gin file or of a part; ConfigError if it can't be read or has none."""
    from rrl.config import ginfile

    return ginfile.bound(name, "env")


def config_of(name: str) -> Any:
    """A component's default configuration; untrained where `weights` has no default."""
    schema = registry.get(name).Config
    weights = schema.model_fields.get("weights")
    return schema(**({"weights": None} if weights and weights.is_required() else {}))


def encoder_config(name: str) -> Any:
    """The encoder's default configuration; untrained where its weights are not at hand (equally fast)."""
    from rrl.encoders import weights
    from rrl.encoders.settings.frozen import FrozenEncoder

    component = registry.get(name)
    if not issubclass(component, FrozenEncoder):
        raise UserError(f"{name} encodes no pictures: there is no sampling to compare")
    try:
        config = config_of(name)
    except pydantic.ValidationError as error:
        raise UserError(f"{name}: {refusals(error, component.Config, {})}") from error
    here = config.weights is None or weights.installed(config.source, config.weights)
    return config if here else config.model_copy(update={"weights": None})


def main() -> None:
    """Serve the pipeline that the argument names until the input ends."""
    # Libraries may print: the answers get the standard output for themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    chosen, length = json.loads(sys.argv[1])
    try:
        serve(Pipeline(**chosen), length, answers)
    except UserError as error:
        sys.exit(f"error: {error}")
