"""Commands for what was trained: `rrl eval`, `rrl play`, `rrl export`, `rrl look`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rrl.cli import completion
from rrl.cli.options import EPISODES, SEED, Sets, path, word

Policy = Annotated[
    str,
    typer.Argument(
        parser=word,
        autocompletion=completion.runs,
        help="A run (id or the beginning of one), a policy file or exported folder, or a shipped policy's name.",
    ),
]
Seed = Annotated[int | None, typer.Option(help="Decides the episodes; default: the run's.", min=0, max=SEED)]


def eval_(
    policy: Policy,
    episodes: Annotated[
        int | None,
        typer.Option(help="Default: the run's own final evaluation, the same episodes.", min=1, max=EPISODES),
    ] = None,
    seed: Seed = None,
    best: Annotated[
        bool,
        typer.Option("--best", help="Of a run, the policy with the best return (SAC and its kin: in evaluations)."),
    ] = False,
    video: Annotated[Path | None, typer.Option(parser=path, help="Also film three episodes into this .mp4.")] = None,
    json: Annotated[Path | None, typer.Option("--json", parser=path, help="Write the numbers to this file.")] = None,
    with_: Annotated[
        str | None,
        typer.Option(
            "--with",
            parser=word,
            autocompletion=completion.gin_files,
            metavar="FILE",
            help="Instead, the evaluators that this gin file binds to Experiment.evaluators, such as eval/distractors; "
            "finished episodes are kept, the run's MLflow run gets the numbers.",
        ),
    ] = None,
    set_: Sets = None,
) -> None:
    """Evaluate a policy from its file alone.

    By mean and by sampled actions, by both success rules, with intervals.
    """
    from rrl.commands import policies as evaluation
    from rrl.machine import signals
    from rrl.machine.console import Display

    if with_ is None and set_:
        raise typer.BadParameter(
            "a policy acts in its run's own environment, and --set changes the evaluators of a --with FILE alone, as "
            'in `--with eval/sensors --set "SensorFaults.episodes = 25"`. eval/sensors tries other faults of sensors, '
            "and none of a run that has some; eval/distractors tries other pictures"
        )
    if with_ is not None and (episodes or video):
        raise typer.BadParameter(
            f"{'--episodes' if episodes else '--video'} is for a run's own evaluation; evaluators of a --with FILE "
            'have settings of their own, such as --set "VisualDistractors.episodes = 25", "VisualDistractors.films = 3"'
        )
    then = "nothing of it is kept" if with_ is None else "the same command goes on"
    with Display() as display, signals.told(display.line, then):
        evaluation.evaluate(
            policy,
            display,
            episodes=episodes,
            seed=seed,
            best=best,
            video=video,
            json_file=json,
            other=with_,
            overrides=set_ or [],
        )


def play(
    policy: Policy,
    out: Annotated[
        Path | None,
        typer.Option(parser=path, help="The .mp4, or for Rerun's viewer .rrd, to write; default: a window."),
    ] = None,
    episodes: Annotated[int, typer.Option(help="The first ones of its evaluation.", min=1, max=1_000)] = 3,
    seed: Seed = None,
    sampled: Annotated[bool, typer.Option("--sampled", help="Sampled actions instead of the mean one.")] = False,
    best: Annotated[bool, typer.Option("--best", help="Of a run, the policy with the best return.")] = False,
    camera: Annotated[
        list[str] | None, typer.Option(help="For the video; repeatable: side by side; default: its own.")
    ] = None,
    look: Annotated[str, typer.Option(help="Of the video: default, balanced or fast.")] = "default",
    size: Annotated[int, typer.Option(help="Side of a camera's picture in pixels; even.", min=16, max=4_096)] = 480,
    every: Annotated[int, typer.Option(help="Film every so many steps.", min=1, max=10**6)] = 4,
) -> None:
    """Show a policy at work.

    In a video through any camera, in a recording for Rerun, or in MuJoCo's viewer.
    """
    from rrl.commands import playing
    from rrl.machine.console import Display

    with Display() as display:
        playing.play(
            policy,
            out,
            display.line,
            display,
            count=episodes,
            seed=seed,
            sampled=sampled,
            best=best,
            cameras=camera or [],
            look=look,
            size=size,
            every=every,
        )


def export(
    run: Annotated[
        str,
        typer.Argument(
            parser=word,
            autocompletion=completion.runs,
            help="A run id, the beginning of one, or a run's folder; with --onnx also a policy file or a gin file.",
        ),
    ],
    policy: Annotated[
        Path | None, typer.Option("--policy", parser=path, help="Write the policy to this .safetensors.")
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option("--encoder", parser=path, help="Write the encoder that the run trained (RAD, ...) to this one."),
    ] = None,
    onnx: Annotated[
        Path | None,
        typer.Option(
            "--onnx",
            parser=path,
            help="Write an ONNX graph to this .onnx: of a policy, from frames and state to the mean action; of a gin "
            "file that isn't called as a shipped policy, such as encoder/mobilenetv2, its frozen encoder alone.",
        ),
    ] = None,
    hub: Annotated[
        Path | None,
        typer.Option(
            "--hub",
            parser=path,
            help="Write a folder for the Hugging Face Hub: the policy, its configuration, a model card with the final "
            "evaluation's numbers, the learning curve, the last video.",
        ),
    ] = None,
    mlflow: Annotated[
        bool,
        typer.Option("--mlflow", help="Log the policy as a model in the run's MLflow run."),
    ] = False,
    register: Annotated[
        str | None, typer.Option(help="With --mlflow: the model's name in MLflow's registry, as its next version.")
    ] = None,
    best: Annotated[
        bool,
        typer.Option("--best", help="The one with the best return (SAC and its kin: in evaluations), not the last."),
    ] = False,
    half: Annotated[bool, typer.Option("--half", help="Network weights in float16: half the size, rounded.")] = False,
    int8: Annotated[
        bool, typer.Option("--int8", help="Matrices in int8, each row with a scale: a quarter of the size, rounded.")
    ] = False,
) -> None:
    """Copy a run's policy or trained encoder into a file of its own.

    With where it comes from; or the policy into a folder that others can read, or into MLflow; or write an ONNX graph
    of what is frozen, for programs without rrl.

    `FixedEncoder.file` takes an exported encoder: frozen features for other tasks and agents.
    """
    from rrl.commands import policies as evaluation

    if [policy, encoder, onnx, hub, mlflow or None].count(None) != 4:
        raise typer.BadParameter(
            "say what to export, one at a time: --policy FILE, --encoder FILE, --onnx FILE, --hub FOLDER or --mlflow"
        )
    if register is not None and not mlflow:
        raise typer.BadParameter("--register is for --mlflow: the registry is MLflow's")
    if half and int8:
        raise typer.BadParameter("--half or --int8, not both")
    if mlflow and (half or int8):
        raise typer.BadParameter("--half and --int8 are for --policy: a model's policy is whole")
    if onnx is not None and (half or int8):
        raise typer.BadParameter("--half and --int8 are for --policy: an ONNX graph computes in float32")
    if encoder is not None and (best or half or int8):
        raise typer.BadParameter("--best, --half and --int8 are for --policy: a run keeps one encoder, the last")
    if hub is not None and (best or half or int8):
        raise typer.BadParameter(
            "--best, --half and --int8 are for --policy: a card's numbers are of the last policy, whole"
        )
    if policy is not None:
        evaluation.export(run, policy, typer.echo, best=best, rounding="half" if half else "int8" if int8 else None)
    if encoder is not None:
        evaluation.export_encoder(run, encoder, typer.echo)
    if onnx is not None:
        from rrl.commands import onnx_export

        onnx_export.export(run, onnx, typer.echo, best=best)
    if hub is not None:
        from rrl.commands import hub as hub_export

        hub_export.export(run, hub, typer.echo)
    if mlflow:
        from rrl.commands import mlflow_export

        mlflow_export.export(run, typer.echo, best=best, register=register)


def look(
    subjects: Annotated[
        list[str],
        typer.Argument(
            parser=word,
            autocompletion=completion.gin_files_and_runs,
            help="Gin files (their first demonstration), policies or runs (an episode); several stand side by side.",
        ),
    ],
    out: Annotated[Path, typer.Option(parser=path, help="The .png to write.")] = Path("look.png"),
    frames: Annotated[int, typer.Option(help="Moments of the episode: rows of the sheet.", min=1, max=100)] = 8,
    of: Annotated[
        str, typer.Option(help="features: what the encoder answers to; action: what a policy acts on.")
    ] = "features",
    size: Annotated[int, typer.Option(help="Side of a picture in the sheet, in pixels.", min=16, max=1_024)] = 224,
    set_: Sets = None,
) -> None:
    """Draw where in its pictures a frozen network looks (Grad-CAM).

    One sheet of maps, as the paper's figure 2.
    """
    if of not in ("features", "action"):
        raise typer.BadParameter(f"--of is features or action; got {of!r}")
    from rrl.commands import looking
    from rrl.machine.console import Display

    explained: Literal["features", "action"] = "action" if of == "action" else "features"
    with Display() as display:
        looking.show(subjects, set_ or [], out, display, count=frames, of=explained, side=size)
