"""`rrl bench`: how fast this machine is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rrl.cli.options import Sets, finite, path, word

app = typer.Typer(help="This machine's speed, against plain references.", no_args_is_help=True)

Task = Annotated[str, typer.Option(help="pen, door, hammer or relocate.")]
Encoders = Annotated[list[str] | None, typer.Option("--encoder", help="Repeatable; default: all.")]
Repeats = Annotated[int, typer.Option(help="Turns; medians are over them.", min=1, max=1_000)]
Length = Annotated[
    float, typer.Option("--seconds", help="Of each case in each turn.", min=0.1, max=3_600.0, callback=finite)
]
Json = Annotated[Path | None, typer.Option("--json", parser=path, help="Write everything to this file.")]


@app.command("sampling")
def bench_sampling(
    task: Task = "door",
    env: Annotated[
        str,
        typer.Option(
            parser=word,
            help="Another environment: that of a gin file or of a part, such as env/gym_pusher; no reference.",
        ),
    ] = "",
    encoder: Encoders = None,
    look: Annotated[list[str] | None, typer.Option(help="Repeatable; default: fast and balanced.")] = None,
    repeats: Repeats = 5,
    seconds: Length = 6.0,
    json: Json = None,
) -> None:
    """Environment steps per second from pixels, and what limits them."""
    from rrl.bench import report

    report.sampling(task, env, encoder, look or [], repeats, seconds, json)


@app.command("rendering")
def bench_rendering(task: Task = "door", repeats: Repeats = 5, seconds: Length = 2.0, json: Json = None) -> None:
    """Frames per second by look and size, and what a look changes."""
    from rrl.bench import report

    report.rendering(task, repeats, seconds, json)


@app.command("encoders")
def bench_encoders(encoder: Encoders = None, task: Task = "door", repeats: Repeats = 5, json: Json = None) -> None:
    """Images per second by backend, precision and batch.

    And how far features are from float32's.
    """
    from rrl.bench import report

    report.encoders(encoder, task, repeats, json)


@app.command("updates")
def bench_updates(repeats: Repeats = 5, json: Json = None) -> None:
    """Updates of agents, against their plain forms.

    NPG updates and value fits on 40,000 samples, and RLPD's updates of 256.
    """
    from rrl.bench import report

    report.updates(repeats, json)


@app.command("sac")
def bench_sac(repeats: Repeats = 5, json: Json = None) -> None:
    """RAD's updates per second from pixels, against its plain form."""
    from rrl.bench import report

    report.sac(repeats, json)


@app.command("pretrain")
def bench_pretrain(repeats: Repeats = 5, json: Json = None) -> None:
    """Pictures per second of pretraining, against a bare torch loop."""
    from rrl.bench import report

    report.pretrain(repeats, json)


@app.command("startup")
def bench_startup(
    repeats: Annotated[int, typer.Option(help="Turns; medians are over them.", min=1, max=1_000)] = 7, json: Json = None
) -> None:
    """Processor seconds of commands, against `import torch`.

    And of a run up to its first step.
    """
    from rrl.bench import report

    report.startup(repeats, json)


@app.command("compute")
def bench_compute(
    files: Annotated[
        list[str] | None,
        typer.Argument(parser=word, help="Gin files of runs; default: RRL with some encoders, and FERM, on the door."),
    ] = None,
    repeats: Repeats = 5,
    json: Json = None,
    chart: Annotated[
        Path | None, typer.Option(parser=path, help="Draw the cost of 4M steps: this file's name with .png and .svg.")
    ] = None,
    set_: Sets = None,
) -> None:
    """What runs compute per environment step.

    And in the paper's 4M steps (figure 5, left): multiply-adds and time, without simulation and rendering.
    """
    from rrl.bench import report

    report.compute(files or [], repeats, json, chart, set_ or [])
