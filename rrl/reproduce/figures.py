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
    substitute: str = ""
    """Shipped gin file that is run where its weights can't be had: another method, as the verdict says."""
    published: bool = False
    """Whether published numbers of it come with the package."""


@dataclass(frozen=True)
class Figure:
    """A figure of the paper."""

    title: str
    wanted: tuple[Wanted, ...]
    tasks: tuple[str, ...] = ("pen", "door", "hammer", "relocate")


FIGURES = {
    "fig4": Figure(
        "RRL and the oracles that see the state",
        (
            Wanted("adroit_{task}_resnet34", "adroit_{task}_mobilenetv2", published=True),
            Wanted("adroit_{task}_state"),
            Wanted("ablations/{task}_npg_state"),
        ),
    ),
}
