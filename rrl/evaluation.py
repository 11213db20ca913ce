"""`rrl eval` and `rrl export`: a policy judged from its file alone, and a file that travels."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch

from rrl import checkpoint, policies, results
from rrl.envs.base import EnvFactory
from rrl.evaluators.base import Context
from rrl.evaluators.success import SuccessRate
from rrl.evaluators.video import Video
from rrl.experiment import BEST_POLICY, POLICY, cores
from rrl.registry import UserError, build
from rrl.rollout import Collector

Say = Callable[[str], None]


def evaluate(
    source: str,
    say: Say,
    *,
    episodes: int | None = None,
    seed: int | None = None,
    best: bool = False,
    video: Path | None = None,
    json_file: Path | None = None,
) -> dict[str, float]:
    """Run a policy's final evaluation (or `episodes` of both kinds of action) and say what comes out.

    With the defaults these are the run's own evaluation episodes; on the machine and versions of the run, the
    numbers are those that it logged as `final/*`.
    """
    for out in (video, json_file):
        if out is not None and out.exists():
            raise UserError(f"{out} exists already; choose another name or remove it first")
    path = locate(source, best)
    config, _, _ = policies.load(path)
    groups, threads = config.groups or 1, cores()
    env: EnvFactory = build(config.env)
    batch = -(-config.num_envs // groups) * len(env.cameras)
    config, agent, facts = policies.load(path, batch=batch, threads=threads)
    say(
        f"{path}: {env.name}, {config.encoder.component.__name__}, {config.agent.component.__name__}, "
        f"{facts.get('iteration', '?')} updates"
    )
    evaluators = _final(config) if episodes is None else ()
    if not evaluators:
        evaluators = (SuccessRate.Config(episodes=episodes or 100, actions="both"),)
    envs = env.make(config.num_envs, config.encoder.frames(), threads)
    found: dict[str, float] = {}
    try:
        collector = Collector(envs, groups)
        with tempfile.TemporaryDirectory() as folder:
            context = Context(
                collector=collector,
                frames=config.encoder.frames(),
                encoder=config.encoder.component.__name__,
                seed=config.seed if seed is None else seed,
                folder=Path(folder),
                iteration=int(facts.get("iteration", 0)),
                say=say,
                progress=lambda _: None,
                warm_started=_no_demonstrations,
            )
            for each in evaluators:
                found |= SuccessRate(each).run(agent, env, context)
            for name, value in found.items():
                if name.startswith(tuple(env.flags[1:])):
                    say(f"{name}: {value:.1f} %")
            if video is not None:
                film = Video(Video.Config())
                found |= film.run(agent, env, context)
                for made in Path(folder).glob("videos/*.mp4"):
                    video.parent.mkdir(parents=True, exist_ok=True)
                    video.write_bytes(made.read_bytes())
    finally:
        envs.close()
    if json_file is not None:
        text = {"policy": str(path), "seed": config.seed if seed is None else seed, **found}
        json_file.write_text(json.dumps(text, indent=2) + "\n")
    return found


def locate(source: str, best: bool) -> Path:
    """The policy file that a user's word means: a file, a shipped policy's name, or a run."""
    if source in policies.shipped():
        return policies.shipped()[source]
    if Path(source).is_file():
        return Path(source)
    try:
        (run,) = results.find([source])
    except UserError as error:
        known = ", ".join(policies.shipped())
        raise UserError(
            f"{source} is no policy file, no shipped policy ({known}) and no run: {error}"
        ) from error
    except ValueError as error:
        raise UserError(f"{source} is a sweep of many runs; name one of them") from error
    path = run.folder / (BEST_POLICY if best else POLICY)
    if not path.exists():
        raise UserError(f"{run.folder} has no {path.name} yet: the run has not come that far")
    return path


def export(run: str, out: Path, say: Say, *, best: bool, half: bool) -> None:
    """Write a run's policy with its provenance; `half` keeps the networks' weights in float16.

    What standardises observations and actions stays in float32: features that hardly vary need its digits.
    """
    if out.exists():
        raise UserError(f"{out} exists already; choose another name or remove it first")
    (result,) = results.find([run])
    tensors, values = checkpoint.load_file(locate(run, best))
    if half:
        tensors = {k: t.to(torch.float16) if k.startswith("mlp.") else t for k, t in tensors.items()}
    told = {k: result.tags[k] for k in ("git_commit", "rrl", "demos", "demos.checksum") if k in result.tags}
    values |= {"run": result.run_id, "name": result.name, "steps": result.steps, **told}
    final = {k: v for row in result.rows for k, v in row.metrics.items() if k.startswith("final/")}
    if final and not best:
        values["final"] = final
    out.parent.mkdir(parents=True, exist_ok=True)
    checkpoint.save_file(out, tensors, values)
    say(f"{out}: {out.stat().st_size / 1e6:.2f} MB, {result.name} after {values['iteration']} updates")


def _final(config: Any) -> tuple[SuccessRate.Config, ...]:
    """The run's success evaluators of the end."""
    return tuple(e for e in config.evaluators if isinstance(e, SuccessRate.Config) and e.when == "end")


def _no_demonstrations(*_: Any) -> NoReturn:
    raise UserError("an evaluation from a policy file alone has no demonstrations to clone")
