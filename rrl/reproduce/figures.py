"""What `rrl reproduce` knows: the paper's figures and its table, each made of shipped files. A further one is one more
entry.

Which encoders stand in figure 6 and which in 7, which task is in the centre of figure 5 and which at its right, and the
tasks of figures 6 to 9, are our choice where the paper's text doesn't tell.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

SEEDS = (10, 11, 12)
"""The authors'."""
ADROIT = ("pen", "door", "hammer", "relocate")
DMCONTROL = ("finger_spin", "cartpole_swingup", "reacher_easy", "cheetah_run", "walker_walk", "ball_in_cup_catch")
OFFLINE = ("Experiment.encoder = @MobileNetV2()",)
DAYS = "{} runs a task, of 39 to 63 hours each with a GPU in the authors' logs (ResNet34's)"


@dataclass(frozen=True)
class Wanted:
    """One curve of a figure, or one method. Names are those of shipped gin files; `{task}` stands for the task."""

    file: str
    substitute: str = ""
    """File that is run where its weights can't be had: another method, as the verdict says."""
    published: bool = False
    """Whether published numbers of it come with the package."""
    extra: bool = False
    """Is it run with `--oracles` alone?"""
    pretraining: tuple[str, ...] = ()
    """File of the training of its encoder, and settings over it."""

    def of(self, task: str) -> Wanted:
        """With the task's name in the files'."""
        pretraining = tuple(text.format(task=task) for text in self.pretraining)
        file, substitute = self.file.format(task=task), self.substitute.format(task=task)
        return Wanted(file, substitute, self.published, self.extra, pretraining)


@dataclass(frozen=True)
class Figure:
    """A figure or a table of the paper."""

    title: str
    tasks: tuple[str, ...]
    """(): it has none to choose from."""
    cost: str
    """At the paper's scale."""
    told: str = ""
    """What the paper's text says of it in numbers, where none come with the package."""
    takes: ClassVar[frozenset[str]]
    """Options of `rrl reproduce` that mean something for it."""
    trains: ClassVar[frozenset[str]] = frozenset({"budget", "seeds", "oracles"})
    """Options that are about training: they mean nothing beside `--run`."""
    otherwise: ClassVar[str] = ""
    """The command that makes the like of runs of any task."""


@dataclass(frozen=True)
class Training(Figure):
    """Learning curves."""

    wanted: tuple[Wanted, ...] = ()
    offline: tuple[str, ...] = ()
    """Settings that stand in for what can't be had where a curve has no `substitute`: another method likewise."""
    takes = frozenset({"budget", "seeds", "oracles", "run", "out"})
    trains = Figure.trains | {"set"}
    otherwise = "rrl report {run}"


@dataclass(frozen=True)
class Evaluation(Figure):
    """What `rrl eval POLICY --with` finds of finished policies."""

    wanted: tuple[Wanted, ...] = ()
    """The runs that make the policies; one that is shipped under a run's name (or its substitute's) stands in."""
    evaluation: str = ""
    """Gin file of the evaluators."""
    takes = frozenset({"budget", "seeds", "run", "out"})
    otherwise = "rrl eval {run} --with {figure.evaluation}"


@dataclass(frozen=True)
class Sheet(Evaluation):
    """One whose figure is what the evaluators draw of a policy's pictures; else it is a chart of the methods side by
    side."""

    takes = frozenset({"budget", "seeds", "run"})


@dataclass(frozen=True)
class Look(Figure):
    """A sheet of `rrl look`."""

    wanted: tuple[Wanted, ...] = ()
    takes = frozenset({"run", "out"})
    otherwise = "rrl look {run}"


@dataclass(frozen=True)
class Reconstruction(Figure):
    """The sheet of `rrl pretrain`."""

    file: str = ""
    takes = frozenset({"budget"})


@dataclass(frozen=True)
class Compute(Figure):
    """The chart of `rrl bench compute`."""

    repeats: int = 5
    takes = frozenset({"out", "repeats"})


def _curves(files: Iterable[str]) -> tuple[Wanted, ...]:
    return tuple(Wanted(file) for file in files)


RRL = Wanted("adroit_{task}_resnet34", "adroit_{task}_mobilenetv2")
FERM = Wanted("adroit_{task}_ferm")
BASE = Wanted("adroit_{task}_resnet34")
"""What ablations are compared with."""
DISTRACTED = "success under visual distractors, RRL and FERM"
EVALUATED = "375 episodes a policy; FERM has none that is shipped, nor has RRL on hammer: 4M steps or more to train"

FIGURES: dict[str, Figure] = {
    "fig2": Look("where the frozen network looks (Grad-CAM)", ADROIT, "minutes", wanted=(RRL,)),
    "fig4": Training(
        "RRL and the oracles that see the state",
        ADROIT,
        DAYS.format(3),
        wanted=(
            Wanted(RRL.file, RRL.substitute, published=True),
            Wanted("adroit_{task}_state", extra=True),
            Wanted("ablations/{task}_npg_state", extra=True),
            Wanted("adroit_{task}_ferm", extra=True),
        ),
    ),
    "fig5_left": Compute(
        "what 4M steps cost to compute, RRL by encoder and FERM",
        (),
        "minutes, by projection",
        told="FERM about 5 times RRL(ResNet34), in the text",
    ),
    "fig5_centre": Evaluation(DISTRACTED, ("door",), EVALUATED, wanted=(RRL, FERM), evaluation="eval/distractors"),
    "fig5_right": Evaluation(DISTRACTED, ("hammer",), EVALUATED, wanted=(RRL, FERM), evaluation="eval/distractors"),
    "fig6": Training(
        "the representation: ResNets of three sizes, and a VAE of the task's own pictures",
        ("door", "pen"),
        DAYS.format(12),
        wanted=(
            *_curves(("ablations/{task}_resnet18", BASE.file, "ablations/{task}_resnet50")),
            Wanted("ablations/{task}_vae", pretraining=("pretrain/vae_adroit_{task}", "Adroit.look = 'default'")),
        ),
    ),
    "fig7": Training(
        "other kinds of frozen networks",
        ("door", "pen"),
        DAYS.format(12),
        wanted=_curves(
            (BASE.file, "ablations/{task}_mobilenetv2", "ablations/{task}_shufflenetv2", "ablations/{task}_vdvae")
        ),
    ),
    "fig8": Training(
        "RRL with noise on its joint angles, and from pictures alone",
        ("door", "pen"),
        DAYS.format(9),
        wanted=_curves((BASE.file, "ablations/{task}_joint_noise", "ablations/{task}_vision_only")),
        offline=OFFLINE,
    ),
    "fig9": Training(
        "sparse and dense reward (left), and the policy's size (right)",
        ("door", "pen"),
        DAYS.format(15),
        wanted=_curves(
            (BASE.file, "ablations/{task}_dense", *(f"ablations/{{task}}_policy{size}" for size in (64, 128, 512)))
        ),
        offline=OFFLINE,
    ),
    "fig10": Training(
        "RRL, FERM and the oracles on MJRL's arm",
        ("reacher", "peg_insertion"),
        "12 runs a task; FERM's make 4M updates each",
        wanted=(
            Wanted("mjrl_{task}_resnet34", "mjrl_{task}_mobilenetv2"),
            *_curves(("mjrl_{task}_ferm", "mjrl_{task}_state", "mjrl_{task}_npg_state")),
        ),
    ),
    "fig11": Reconstruction(
        "pictures as the VAE rebuilds them", ADROIT, "1M pictures and 10 epochs", file="pretrain/vae_adroit_{task}"
    ),
    "fig12": Sheet(
        "the visual distractors, shown",
        ("door", "pen"),
        "minutes, with a shipped policy",
        wanted=(RRL,),
        evaluation="eval/distractor_sheet",
    ),
    "table1": Training(
        "SAC on DMControl: RRL_SAC and what it is compared with",
        DMCONTROL,
        "18 runs a task of 500,000 environment steps, 15 of them with pictures",
        wanted=(
            Wanted("dmc_{task}_rrl_sac_resnet34", "dmc_{task}_rrl_sac_mobilenetv2"),
            *(Wanted(f"dmc_{{task}}_{name}", published=True) for name in ("rad", "curl", "sac_ae", "state_sac")),
            Wanted("dmc_{task}_fixed_rad"),
        ),
    ),
}
