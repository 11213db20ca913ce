"""`rrl eval` and `rrl export`: a policy judged from its file alone, and a file that travels."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch

from rrl.config import ginfile
from rrl.encoders import fixed
from rrl.encoders.pixel import PixelEncoder
from rrl.envs.base import EnvFactory
from rrl.envs.vector import WorkerVectorEnv
from rrl.evaluators.base import Context
from rrl.evaluators.success import EpisodeReturn, SuccessRate
from rrl.evaluators.video import Video
from rrl.machine.console import Display
from rrl.machine.cores import cores
from rrl.registry import UserError, build
from rrl.rollout.episodes import Collector
from rrl.run import policies
from rrl.run.saving import BEST_POLICY, CHECKPOINT, POLICY
from rrl.store import checkpoint, results
from rrl.store.results import Result

Say = Callable[[str], None]
# Beginnings of tensors' names in policy files: NPG's and DAPG's networks, and SAC's.
NETWORKS = ("mlp.", "actor.", "actor_head.", "online.encoder.")


def evaluate(
    source: str,
    display: Display,
    *,
    episodes: int | None = None,
    seed: int | None = None,
    best: bool = False,
    video: Path | None = None,
    json_file: Path | None = None,
) -> dict[str, float]:
    """Run a policy's final evaluation (or `episodes` of both kinds of action) and say what comes out.

    With the defaults these are the run's own evaluation episodes; on the machine and versions of the run, the
    numbers are those that it logged as `final/*`, or as the last `eval/*` if it has no final evaluation (not
    of int8: it is evaluated in float32, and says so).
    """
    for out in (video, json_file):
        if out is not None and out.exists():
            raise UserError(f"{out} exists already; choose another name or remove it first")
    if video is not None and video.suffix != ".mp4":
        raise UserError(f"a video is an .mp4; got {video}")
    path, say = locate(source, best), display.line
    config, agent, facts = policies.load(path, as_run=True)
    torch.set_num_threads(config.threads or cores())
    env: EnvFactory = build(config.env)
    encoder, updates = config.encoder.label(), facts.get("iteration", 0)
    say(f"{path}: {env.name}, {encoder}, {config.agent.component.__name__}, {updates} updates")
    if config.encoder.frames() is not None and facts["computed"] != (config.precision, config.backend):
        say(
            f"note: the run's features were {config.precision} by {config.backend}, here they are "
            f"{' by '.join(facts['computed'])}: its own numbers may differ a little"
        )
    evaluators = _own(config) if episodes is None else ()
    if not evaluators:
        count = SuccessRate if env.flags else EpisodeReturn
        evaluators = (count.Config(episodes=episodes or 100, actions="both"),)
    chosen = config.seed if seed is None else seed
    envs = WorkerVectorEnv(env, config.num_envs, config.encoder.frames(), cores())
    found: dict[str, float] = {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            context = Context(
                collector=Collector(envs, config.groups or 1),
                frames=config.encoder.frames(),
                encoder=encoder,
                seed=chosen,
                folder=Path(folder),
                iteration=int(updates),
                say=lambda line: None if line.startswith("video: ") else say(line),
                progress=display.advance,
                warm_started=_no_demonstrations,
            )
            for each in evaluators:
                kinds = 2 if each.actions == "both" else 1
                display.phase("evaluating", kinds * each.episodes * env.horizon)
                evaluator: EpisodeReturn = build(each)
                found |= evaluator.run(agent, env, context)
            for name, value in found.items():
                if name.startswith(tuple(env.flags[1:])):
                    say(f"{name}: {value:.1f} %")
            if video is not None:
                display.phase("filming", Video.Config().episodes * env.horizon)
                found |= Video(Video.Config()).run(agent, env, context)
                for made in Path(folder).glob("videos/*.mp4"):
                    video.parent.mkdir(parents=True, exist_ok=True)
                    video.write_bytes(made.read_bytes())
                    say(f"video: {video}")
    finally:
        envs.close()
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps({"policy": str(path), "seed": chosen, **found}, indent=2) + "\n")
    return found


def locate(source: str, best: bool) -> Path:
    """The policy file that a user's word means: a file, a shipped policy's name, or a run."""
    known = policies.shipped()
    if source in known or Path(source).is_file():
        if best:
            raise UserError("--best chooses between the policies of a run; this is one file")
        return known.get(source, Path(source))
    try:
        return _policy_of(_run(source), best)
    except UserError as error:
        raise UserError(
            f"{source} is no policy file and no shipped policy ({', '.join(known)}), and as a run: {error}"
        ) from error


def _run(source: str) -> Result:
    runs = results.find([source])
    if len(runs) != 1:
        raise UserError(f"{source} is a sweep of {len(runs)} runs; name one of its runs")
    return runs[0]


def _policy_of(run: Result, best: bool) -> Path:
    path = run.folder / (BEST_POLICY if best else POLICY)
    if not path.exists():
        raise UserError(f"{run.folder} has no {path.name} yet: the run has not come that far")
    return path


def export(source: str, out: Path, say: Say, *, best: bool, half: bool) -> None:
    """Write a run's policy with its provenance; `half` keeps the networks' weights in float16.

    What standardises observations and actions stays in float32: features that hardly vary need its digits.
    """
    if out.exists():
        raise UserError(f"{out} exists already; choose another name or remove it first")
    run = _run(source)
    tensors, values = checkpoint.load_file(_policy_of(run, best))
    if half:
        tensors = {k: t.to(torch.float16) if k.startswith(NETWORKS) else t for k, t in tensors.items()}
    # The row of update k says how many steps there had been by then; before the first update there are none.
    steps = [row.step for row in run.rows if row.metrics.get("iteration", 0) == values["iteration"]]
    told = {k: run.tags[k] for k in ("git_commit", "rrl", "demos", "demos.checksum") if k in run.tags}
    values |= {"run": run.run_id, "name": run.name, "steps": steps[0] if steps else 0, **told}
    final = {k: v for row in run.rows for k, v in row.metrics.items() if k.startswith("final/")}
    if final and not best:
        values["final"] = final
    out.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save_file(out, tensors, values)
    say(f"{out}: {out.stat().st_size / 1e6:.2f} MB, {run.name} after {values['iteration']} updates")


def export_encoder(source: str, out: Path, say: Say) -> None:
    """Write the encoder that a run trained, with its critics' head: what `FixedEncoder.file` takes."""
    if out.exists():
        raise UserError(f"{out} exists already; choose another name or remove it first")
    run = _run(source)
    config: Any = ginfile.load(run.folder / "config.gin")
    kind = config.encoder.component
    if not issubclass(kind, PixelEncoder):
        raise UserError(f"{run.name} trained no encoder: {kind.__name__} was frozen already")
    if not (run.folder / CHECKPOINT).exists():
        raise UserError(f"{run.folder} has no checkpoint yet: the run has not come that far")
    tensors, values = checkpoint.load_file(run.folder / CHECKPOINT)
    env: EnvFactory = build(config.env)
    encoder: PixelEncoder = build(config.encoder, cameras=len(env.cameras))
    head = encoder.head(torch.Generator())
    for module, name in ((encoder, "online.encoder."), (head, "online.head.")):
        module.load_state_dict({k.removeprefix(name): t for k, t in tensors.items() if k.startswith(name)})
    facts = {"run": run.run_id, "name": run.name, "steps": values["steps"]}
    facts |= {k: run.tags[k] for k in ("git_commit", "rrl", "env") if k in run.tags}
    out.parent.mkdir(parents=True, exist_ok=True)
    fixed.save_encoder(out, encoder, head, facts)
    say(f"{out}: {out.stat().st_size / 1e6:.2f} MB, {run.name} after {values['steps']:,} environment steps")


def _own(config: Any) -> tuple[EpisodeReturn.Config, ...]:
    """The run's evaluators of success or return: of the end, or else those after updates."""
    found = tuple(e for e in config.evaluators if isinstance(e, EpisodeReturn.Config))
    return tuple(e for e in found if e.when == "end") or found


def _no_demonstrations(*_: Any) -> NoReturn:
    raise UserError("an evaluation from a policy file alone has no demonstrations to clone")
