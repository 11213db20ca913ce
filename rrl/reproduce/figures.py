"""The figures that `rrl reproduce` knows: which runs each is made of. A further one is one more entry."""

from __future__ import annotations

from dataclasses import dataclass

SEEDS = (10, 11, 12)
"""The authors'."""


@dataclass(frozen=True)
class Wanted:
    """One curve of a figure."""

    file: str
    """Shipped gin file; `{task}` stands for the task."""
    substitute: tuple[str, ...] = ()
    """Overrides with which it can run where its weights can't be had: another method, said in the verdict."""
    published: bool = False
    """Whether published numbers of it come with the package."""


@dataclass(frozen=True)
class Figure:
    """A figure of the paper."""

    title: str
    wanted: tuple[Wanted, ...]
    tasks: tuple[str, ...] = ("pen", "door", "hammer", "relocate")


OFFLINE = ("Experiment.encoder = @MobileNetV2()", "Adroit.look = 'fast'", "Experiment.precision = 'auto'")
"""RRL where ResNet34's weights can't be had, drawn quickly enough for a CPU."""

FIGURES = {
    "fig4": Figure(
        "RRL and the oracles that see the state",
        (
            Wanted("adroit_{task}_resnet34", OFFLINE, published=True),
            Wanted("adroit_{task}_state"),
            Wanted("ablations/{task}_npg_state"),
        ),
    ),
}
