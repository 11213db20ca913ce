"""Several policies under the same conditions, side by side: a table and bars with their 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.table import Table

from rrl.machine.paths import charts, new_file, writable
from rrl.store import files

Found = Mapping[str, Mapping[str, float]]
"""Policy -> what an evaluator of paired conditions found: `distractors/nominal/success`, its `_low` and `_high`."""


def conditions(found: Found) -> dict[str, str]:
    """Condition, in words -> its metric; where policies have different scores, each with its score's name."""
    metrics = {name.removesuffix("_low") for each in found.values() for name in each if name.endswith("_low")}
    ordered = [name for each in found.values() for name in each if name in metrics]
    scores = [name for name in dict.fromkeys(ordered) if not name.endswith("/change")]
    several = len({name.rpartition("/")[2] for name in scores}) > 1
    words = {name: name.split("/")[1].replace("_", " ") for name in scores}
    return {f"{word}, {name.rpartition('/')[2]}" if several else word: name for name, word in words.items()}


def table(found: Found) -> Table:
    """Scores with their intervals, and the paired changes from the nominal one."""
    made = Table(title="score, and paired change from nominal (95 %)", title_justify="left")
    for column in ("", *found):
        made.add_column(column)
    for condition, name in conditions(found).items():
        made.add_row(condition, *(_cell(each, name) for each in found.values()))
    return made


def _cell(values: Mapping[str, float], name: str) -> str:
    if name not in values:
        return "-"
    low, high = values[f"{name}_low"], values[f"{name}_high"]
    change = f"{name.rpartition('/')[0]}/change"
    text = f"{values[name]:.0f} ({low:.0f} to {high:.0f})"
    if change not in values:
        return text
    ends = f"{values[f'{change}_low']:+.0f} to {values[f'{change}_high']:+.0f}"
    return f"{text}, {values[change]:+.0f} ({ends})"


def check(out: Path, title: str) -> None:
    """UserError if `out` can't be written, or is there and no chart of this title."""
    for file in charts(out):
        if file.is_file() and title.encode() in file.read_bytes()[:4000]:
            writable(file.parent)
        else:
            new_file(file)


def draw(found: Found, title: str, out: Path) -> None:
    """Write bars, a group for each condition and in it one for each policy, as a .png and a .svg."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    known = conditions(found)
    figure = Figure(figsize=(3 + 0.5 * len(known) * (len(found) + 1), 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes, width = figure.add_subplot(), 0.8 / len(found)
    for n, (policy, values) in enumerate(found.items()):
        there = [(x, name) for x, name in enumerate(known.values()) if name in values]
        heights = [values[name] for _, name in there]
        ends = [[abs(values[name] - values[f"{name}_{end}"]) for _, name in there] for end in ("low", "high")]
        axes.bar([x + (n + 0.5) * width - 0.4 for x, _ in there], heights, width, yerr=ends, capsize=3, label=policy)
    axes.set_xticks(range(len(known)), list(known), rotation=30, ha="right", fontsize=8)
    axes.set_ylabel(", ".join(dict.fromkeys(name.rpartition("/")[2] for name in known.values())))
    axes.grid(axis="y", alpha=0.3)
    axes.set_title(title, fontsize=9)
    figure.legend(loc="outside lower left", fontsize=8, frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    for path in charts(out):
        with files.writing(path) as file:
            figure.savefig(file, format=path.suffix[1:], metadata={"Title": title})  # `check` looks for it
