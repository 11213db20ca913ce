"""`rrl eval` and `rrl export`: a policy judged from its file alone, and a file that travels."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import torch

from rrl.agents.base import Agent
from rrl.commands.kept_evaluation import KeptEvaluation
from rrl.config import ginfile
from rrl.config.words import closest
from rrl.encoders import fixed
from rrl.envs.base import EnvFactory
from rrl.envs.vector import WorkerVectorEnv
from rrl.evaluators import choice
from rrl.evaluators.base import Context, Evaluator
from rrl.machine.console import Display
from rrl.machine.cores import cores
from rrl.machine.paths import new_file
from rrl.registry import UserError, build, implementation
from rrl.rollout.episodes import Collector
from rrl.rollout.kept import KeptCollector
from rrl.run import policies, soundness
from rrl.run.rounding import Rounding, rounded
from rrl.run.saving import BEST_POLICY, CHECKPOINT, POLICY
from rrl.store import checkpoint, files, results
from rrl.store.results import Result

Say = Callable[[str], None]
EPISODES = 100
"""Of each kind of action, for a policy whose run has no evaluator of its own."""
ALONE = (
    "evaluators alone are taken from here, and a policy acts in its run's own environment: delete this, or take an "
    "evaluator that changes what a policy gets, as those of eval/sensors and eval/distractors do"
)
"""What to do about a setting of something else."""


def evaluate(
    source: str,
    display: Display,
    *,
    episodes: int | None = None,
    seed: int | None = None,
    best: bool = False,
    video: Path | None = None,
    json_file: Path | None = None,
    other: str | None = None,
    overrides: Sequence[str] = (),
) -> dict[str, float]:
    """Run a policy's final evaluation (or `episodes` of both kinds of action) and say what comes out; with `other`,
    instead, the evaluators that this gin file binds to `Experiment.evaluators`, with `overrides` (gin statements).

    With the defaults these are the run's own evaluation episodes; on the machine and versions of the run, the
    numbers are those that it logged as `final/*`, or as the last `eval/*` if it has no final evaluation (not
    of int8: it is evaluated in float32, and says so). What `other` finds is kept (see `KeptEvaluation`): files and
    finished episodes in a folder of the run, or else of `runs/evaluations`, and its numbers under `after/` in the run's
    MLflow run.
    """
    for out in (video, json_file):
        if out is not None:
            new_file(out)
    if video is not None and video.suffix != ".mp4":
        raise UserError(f"a video is an .mp4; got {video}")
    path, say = locate(source, best), display.line
    config, agent, facts = policies.load(path, as_run=True)
    torch.set_num_threads(config.threads or cores())
    env: EnvFactory = build(config.env)
    updates = facts.get("iteration", 0)
    learnt = config.encoder.label(), config.agent.component.__name__, f"{updates} updates"
    say(f"{path}: {', '.join((env.name, *learnt, *env.at_fault()))}")
    if config.encoder.frames() is not None and facts["computed"] != (config.precision, config.backend):
        say(
            f"note: the run's features were {config.precision} by {config.backend}, here they are "
            f"{' by '.join(facts['computed'])}: its own numbers may differ a little"
        )
    if facts["others"]:
        say(f"note: trained with {', '.join(facts['others'])}: its own numbers may differ")
    seed = config.seed if seed is None else seed
    if other is None:
        with _context(config, env, seed, int(updates), display) as context:
            metrics = _measure(agent, env, context, _evaluators(config, env, episodes), display)
            if video is not None:
                metrics |= _film(agent, env, context, video, display)
    else:
        asked = _asked(other, overrides, config)
        decides = {"computed": facts["computed"], "batches": f"{config.num_envs}/{config.groups}"}
        decides |= {"rrl": version("rrl"), "env": env.facts(), **facts["plugins"]}
        with KeptEvaluation(path, Path(other).stem, asked, None if seed == config.seed else seed, decides) as kept:
            with _context(config, env, seed, int(updates), display, kept.folder) as context:
                envs, groups = context.collector.envs, context.collector.groups
                collector = KeptCollector(envs, groups, agent, kept.decides, kept.pieces, display.skip)
                context = replace(context, collector=collector)
                metrics = _measure(agent, env, context, asked, display)
            say(kept.record(metrics, seed, int(updates)))
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(json_file, {"policy": str(path), "seed": seed, **metrics})
    return metrics


def _evaluators(config: Any, env: EnvFactory, episodes: int | None) -> tuple[Evaluator.Config, ...]:
    """The run's evaluators of its score: of the end, or else those after updates. With `episodes`, or if it has
    none: one of so many episodes."""
    own = tuple(e for e in config.evaluators if e.component.measures_score) if episodes is None else ()
    own = tuple(e for e in own if e.when == "end") or own
    return own or (choice.scoring(env.score, episodes or EPISODES),)


def _asked(source: str, overrides: Sequence[str], config: Any) -> tuple[Evaluator.Config, ...]:
    """The evaluators that a gin file binds. UserError for those that don't fit the policy's run."""
    found = ginfile.bound(source, "evaluators", overrides=overrides, alone=ALONE)
    asked: tuple[Evaluator.Config, ...] = found if isinstance(found, tuple) else (found,)
    kinds = [each.component.__name__ for each in asked]
    if twice := next((kind for kind in kinds if kinds.count(kind) > 1), None):
        raise UserError(
            f"{source} binds {twice} twice to Experiment.evaluators: a run has them at different times, here one would "
            "write over the other's numbers and files; take one at a time"
        )
    run = config.model_copy(update={"evaluators": asked})
    if misfits := [mistake for each in asked for mistake in each.misfit(run)]:
        raise UserError("\n".join(f"{mistake.message}: {mistake.hint}" for mistake in misfits))
    return asked


@contextmanager
def _context(
    config: Any, env: EnvFactory, seed: int, updates: int, display: Display, folder: Path | None = None
) -> Iterator[Context]:
    """What evaluators may use: environments as the run's, and a folder; without one, one that goes away with them."""
    envs = WorkerVectorEnv(env, config.num_envs, config.encoder.frames(), cores())
    try:
        with tempfile.TemporaryDirectory() as passing:
            yield Context(
                collector=Collector(envs, config.groups or 1),
                frames=config.encoder.frames(),
                encoder=config.encoder.label(),
                seed=seed,
                folder=folder or Path(passing),
                iteration=updates,
                say=lambda line: None if folder is None and line.startswith("video: ") else display.line(line),
                progress=display.advance,
                warm_started=_no_demonstrations,
            )
    finally:
        envs.close()


def _measure(
    agent: Agent, env: EnvFactory, context: Context, evaluators: tuple[Evaluator.Config, ...], display: Display
) -> dict[str, float]:
    """What the evaluators find; the goal flags beside the score's are said too."""
    metrics: dict[str, float] = {}
    for config in evaluators:
        display.phase("evaluating", config.steps(env))
        evaluator: Evaluator = build(config)
        metrics |= evaluator.run(agent, env, context)
    metrics = soundness.finite(metrics, display.line)
    for name, value in metrics.items():
        if name.startswith(tuple(env.flags[1:])):
            display.line(f"{name}: {value:.1f} %")
    return metrics


def _film(agent: Agent, env: EnvFactory, context: Context, video: Path, display: Display) -> dict[str, float]:
    """Write the video of some episodes; no file if this machine can't film."""
    config = choice.filming()
    display.phase("filming", config.steps(env))
    evaluator: Evaluator = build(config)
    metrics = dict(evaluator.run(agent, env, context))
    for path in context.folder.glob("videos/*.mp4"):
        video.parent.mkdir(parents=True, exist_ok=True)
        with files.writing(video) as file:
            file.write(path.read_bytes())
        display.line(f"video: {video}")
    return metrics


def locate(source: str, best: bool) -> Path:
    """The policy file that a user's word means: a file, a folder of `rrl export --hub`, a shipped policy's name, or a
    run."""
    known = policies.shipped()
    exported = (Path(source) / POLICY).is_file() and not (Path(source) / results.RUN).is_file()
    if source in known or Path(source).is_file() or exported:
        if best:
            raise UserError("--best chooses between the policies of a run; this is one file")
        return policies.find(source)  # warns where it is both
    try:
        results.folder_of(source)
    except results.NoSuchRun as error:
        close = closest(source, known)
        hint = f"\n  did you mean {close[0]}?" if close else ""
        raise UserError(
            f"{source} is no policy file and no shipped policy ({', '.join(known)}), and as a run: {error}{hint}"
        ) from error
    return policy_of(run_of(source), best)


def run_of(source: str) -> Result:
    """The run that a user's word means; UserError for a sweep."""
    runs = results.find([source])
    if len(runs) != 1:
        raise UserError(f"{source} is a sweep of {len(runs)} runs; name one of its runs")
    return runs[0]


def policy_of(run: Result, best: bool) -> Path:
    """The last policy of a run, or its `best`; UserError if there is none yet."""
    path = run.folder / (BEST_POLICY if best else POLICY)
    if not path.exists():
        raise UserError(f"{run.folder} has no {path.name} yet: the run has not come that far")
    return path


def export(source: str, out: Path, say: Say, *, best: bool, rounding: Rounding | None = None) -> None:
    """Write a run's policy with its provenance; `rounding` is done to what the agent says may be."""
    new_file(out)
    run = run_of(source)
    tensors, values, _ = packed(run, say, best=best, rounding=rounding)
    out.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save_file(out, tensors, values)
    say(f"{out}: {out.stat().st_size / 1e6:.2f} MB, {run.name} after {values['iteration']} updates")


def packed(
    run: Result, say: Say, *, best: bool, rounding: Rounding | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, Any], list[Path]]:
    """What an exported policy file of a run holds, tensors and facts, and the files that it needs beside it: they are
    too large to be in it."""
    path = policy_of(run, best)
    tensors, values = checkpoint.load_file(path)
    finder = policies.finder(path, tensors)
    if rounding is not None:
        agent = _agent(ginfile.loads(values["config"], f"{path}:config.gin", finder=finder))
        tensors = rounded(tensors, rounding, agent.halvable)
        if found := checkpoint.fault(tensors):
            raise UserError(f"float16 ends at 65,504, and {found}: export it without --{rounding}")
    needed = policies.carry(path, tensors, values)
    for file in needed:
        say(f"note: it needs {file}, which is too large to be in it: elsewhere put that file beside it")
    values |= {"run": run.run_id, "name": run.name, "steps": run.steps_by(values["iteration"])}
    values |= _tags(run, "git_commit", "rrl", "demos", "demos.checksum")
    final = {k: v for row in run.rows for k, v in row.metrics.items() if k.startswith("final/")}
    if final and not best:
        values["final"] = final
    return tensors, values, needed


def export_encoder(source: str, out: Path, say: Say) -> None:
    """Write the encoder that a run trained, with its critics' head: a file from which a frozen one is made."""
    new_file(out)
    run = run_of(source)
    gin = run.folder / "config.gin"
    config: Any = ginfile.load(gin, finder=policies.finder(gin, {}))
    kind = config.encoder.component
    if not kind.trainable:
        raise UserError(f"{run.name} trained no encoder: {kind.__name__} was frozen already")
    if not (run.folder / CHECKPOINT).exists():
        raise UserError(f"{run.folder} has no checkpoint yet: the run has not come that far")
    tensors, values = checkpoint.load_file(run.folder / CHECKPOINT)
    env: EnvFactory = build(config.env)
    encoder = build(config.encoder, cameras=len(env.cameras))
    head = encoder.head(torch.Generator())
    trained = _agent(config).encoder_state(tensors)
    encoder.load_state_dict(trained["encoder"])
    head.load_state_dict(trained["head"])
    facts = {"run": run.run_id, "name": run.name, "steps": values["steps"], **_tags(run, "git_commit", "rrl", "env")}
    out.parent.mkdir(parents=True, exist_ok=True)
    fixed.save_encoder(out, encoder, head, facts)
    say(f"{out}: {out.stat().st_size / 1e6:.2f} MB, {run.name} after {values['steps']:,} environment steps")


def _agent(config: Any) -> type[Agent]:
    agent = implementation(config.agent.component)
    assert issubclass(agent, Agent)
    return agent


def _tags(run: Result, *names: str) -> dict[str, str]:
    return {name: run.tags[name] for name in names if name in run.tags}


def _no_demonstrations(*_: Any) -> NoReturn:
    raise UserError("an evaluation from a policy file alone has no demonstrations to clone")
