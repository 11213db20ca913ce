"""`rrl demos`: demonstrations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rrl.cli.options import EPISODES, SEED, finite, numbers_of, path, word

app = typer.Typer(help="Demonstrations.", no_args_is_help=True)


@app.command("info")
def demos_info(
    source: Annotated[
        str | None, typer.Argument(parser=word, help="A shipped set or a file; none: list the shipped.")
    ] = None,
) -> None:
    """Show what a set of demonstrations holds."""
    from rrl.commands import demos

    demos.info(source, typer.echo)


@app.command("make")
def demos_make(
    policy: Annotated[
        Path,
        typer.Argument(parser=path, help="A policy file (a run's policy.safetensors), or a shipped policy's name."),
    ],
    out: Annotated[Path, typer.Argument(parser=path, help="The .npz to write; its .json goes beside it.")],
    episodes: Annotated[
        int, typer.Option(help="Episodes to keep: successful ones, if the task tells.", min=1, max=EPISODES)
    ] = 25,
    seed: Annotated[int, typer.Option(help="Decides the episodes' starts.", min=0, max=SEED)] = 0,
    tries: Annotated[
        int | None, typer.Option(help="Episodes to run for that; default: twice as many.", min=1, max=EPISODES)
    ] = None,
    action_noise: Annotated[
        float,
        typer.Option(
            help="Std of Gaussian noise on the actions, which are normalised to [-1, 1].",
            min=0.0,
            max=10.0,
            callback=finite,
        ),
    ] = 0.0,
) -> None:
    """Record demonstrations with a policy (mean action).

    The successful episodes are kept, or without a success test the first ones.
    """
    from rrl.commands import demos
    from rrl.machine.console import Display, optional_output

    with optional_output(), Display() as display:
        demos.make(policy, out, episodes, seed, tries, display.line, action_noise, display)


@app.command("import")
def demos_import(
    source: Annotated[
        str,
        typer.Argument(
            parser=word,
            help="A DAPG pickle, an .hdf5 (robomimic, D4RL), an .npz of plain arrays, a Minari dataset, or a "
            "LeRobotDataset's folder.",
        ),
    ],
    out: Annotated[Path, typer.Argument(parser=path, help="The .npz to write; its .json goes beside it.")],
    task: Annotated[
        str | None,
        typer.Option(
            help="A task (door), gymnasium's id of one (Pusher-v5), or a gin file that sets Experiment.env, such as "
            "env/adroit_door; default: where the source says it was recorded, or else the task in its name."
        ),
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="dapg, hdf5, lerobot, minari or npz; default: by the name.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Task variant whose success is counted; default: the task's own.")
    ] = None,
    origin: Annotated[
        str | None, typer.Option(help="Who acted, for tables and comparisons; default: as the file says, else human.")
    ] = None,
) -> None:
    """Take over other people's demonstrations.

    Their actions are replayed here, from where their episodes began. How far that is from what was recorded is said.
    Nothing in a file is run.
    """
    from rrl.commands import demo_imports
    from rrl.machine.console import Display, optional_output

    with optional_output(), Display() as display:
        demo_imports.take_over(
            source, out, display.line, task=task, kind=format_, protocol=protocol, origin=origin, progress=display
        )


@app.command("render")
def demos_render(
    source: Annotated[str, typer.Argument(parser=word, help="A shipped set or a file.")],
    out: Annotated[Path, typer.Argument(parser=path, help="The .mp4 to write.")],
    camera: Annotated[list[str] | None, typer.Option(help="Repeatable: side by side; default: the protocol's.")] = None,
    look: Annotated[str, typer.Option(help="default, balanced or fast.")] = "default",
    episodes: Annotated[str, typer.Option(help="Which ones, from 0: 0,3,4.")] = "0,1,2",
    size: Annotated[int, typer.Option(help="Side of a camera's picture in pixels; even.", min=16, max=4_096)] = 480,
    every: Annotated[int, typer.Option(help="Film every so many steps (4: real time).", min=1, max=10**6)] = 4,
    states: Annotated[
        bool, typer.Option("--states", help="Show the recorded states instead of replaying the actions.")
    ] = False,
) -> None:
    """Film demonstrations through any camera and look."""
    from rrl.commands import demos
    from rrl.machine.console import Display, optional_output

    with optional_output(), Display() as display:
        demos.film(
            source,
            out,
            display.line,
            cameras=camera or [],
            look=look,
            chosen=numbers_of(episodes, "--episodes"),
            size=size,
            every=every,
            by="states" if states else "actions",
            progress=display,
        )


@app.command("export")
def demos_export(
    source: Annotated[str, typer.Argument(parser=word, help="A shipped set or a file.")],
    dataset: Annotated[
        str, typer.Argument(parser=word, help="The Minari id to write, such as rrl/door/expert-v0; lerobot: a folder.")
    ],
    format_: Annotated[
        str, typer.Option("--format", help="minari: states, no pictures. lerobot: a LeRobotDataset v3.0 with pictures.")
    ] = "minari",
    camera: Annotated[
        list[str] | None, typer.Option(help="lerobot: a camera to film with, repeatable; default: the protocol's.")
    ] = None,
    look: Annotated[str | None, typer.Option(help="lerobot: default, balanced or fast.")] = None,
    size: Annotated[
        int | None, typer.Option(help="lerobot: side of the pictures in pixels, even; default: 224.", min=16, max=4_096)
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(
            help="lerobot: what observation.state holds. robot (default): the robot alone, where the environment can "
            "tell; task: the task's objects too, which a policy that learns from pictures should not see."
        ),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="lerobot: the task in words, for policies that read it; default: its name.")
    ] = None,
    fps: Annotated[
        int | None, typer.Option(help="lerobot: steps a second; default: as the simulator says.", min=1, max=10_000)
    ] = None,
) -> None:
    """Write demonstrations for Minari or LeRobot.

    As a local Minari dataset (state observations), or as a LeRobotDataset (pictures too). Either is read back by `rrl
    demos import`.
    """
    from rrl.machine.console import Display, optional_output

    asked = {"camera": camera, "look": look, "size": size, "state": state, "task": task, "fps": fps}
    if format_ not in ("minari", "lerobot"):
        raise typer.BadParameter(f"--format is minari or lerobot; got {format_!r}")
    if format_ == "minari" and (given := [name for name, value in asked.items() if value]):
        raise typer.BadParameter(f"--{given[0]} is of --format lerobot alone")
    if state not in (None, "robot", "task"):
        raise typer.BadParameter(f"--state is robot or task; got {state!r}")
    with optional_output(), Display() as display:
        if format_ == "minari":
            from rrl.commands import demos

            demos.export(source, dataset, display.line, display)
        else:
            from rrl.commands import lerobot

            lerobot.export(
                source,
                Path(dataset),
                display.line,
                cameras=camera or (),
                look=look or "default",
                size=size or lerobot.SIZE,
                fps=fps,
                task=task,
                state="task" if state == "task" else "robot",
                progress=display,
            )


@app.command("verify")
def demos_verify(
    source: Annotated[str, typer.Argument(parser=word, help="A shipped set or a file.")],
) -> None:
    """Replay demonstrations and compare with what was recorded."""
    from rrl.commands import demos
    from rrl.machine.console import Display

    with Display() as display:
        fine = demos.verify(source, display.line, display)
    raise typer.Exit(0 if fine else 1)
