"""The picture that every run leaves: its learning curve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rrl.score import Score
from rrl.store import files
from rrl.store.tracking import Row


def learning_curve(rows: Sequence[Row], title: str, score: Score, path: Path) -> None:
    """The score over environment steps: training (sampled actions) and evaluation, with 95 % intervals of a success;
    of a return with the standard deviation over episodes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    kinds = score.kinds("final", (name for row in rows for name in row.metrics))
    series = (
        (score.metric("train"), "training episodes, sampled action", "tab:blue", "-"),
        (score.metric("eval"), "evaluation, mean action", "tab:orange", "-"),
        (score.metric("eval", "sampled"), "evaluation, sampled action", "tab:green", "-"),
        (score.metric("final"), "final evaluation, mean action", "tab:red", "none"),
        (score.metric("final", "sampled"), "final evaluation, sampled action", "tab:purple", "none"),
        *((score.metric("final", kind), f"final evaluation, {kind}", "dimgray", "none") for kind in kinds),
    )
    for name, label, colour, line in series:
        points = [row for row in rows if name in row.metrics]
        if not points:
            continue
        x = [row.step for row in points]
        y = [row.metrics[name] for row in points]
        low, high = ([_end(row, name, end) for row in points] for end in ("low", "high"))
        if line == "none":
            error = [
                [max(v - lo, 0) for v, lo in zip(y, low, strict=True)],
                [max(h - v, 0) for v, h in zip(y, high, strict=True)],
            ]
            axes.errorbar(x, y, error, fmt="D", color=colour, capsize=4, label=label)
        else:
            axes.plot(x, y, line, marker="o", markersize=3, color=colour, label=label)
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set(xlabel="environment steps", ylabel=score.axis)
    if score.counted:
        axes.set_ylim(-3, 103)
    axes.set_title(title, fontsize=9)
    axes.grid(alpha=0.3)
    if axes.has_data():
        axes.set_xlim(left=0)
        axes.legend(fontsize=8)
    with files.writing(path) as file:
        figure.savefig(file)  # a PNG, if nothing says otherwise


def _end(row: Row, name: str, end: str) -> float:
    """An end of a metric's interval: `eval/success_low_sampled` of `eval/success_sampled`; of a return, one
    standard deviation away."""
    base = name.removesuffix("_sampled")
    kind = name[len(base) :]
    value = row.metrics[name]
    spread = row.metrics.get(f"{base}_std{kind}", 0.0)
    return row.metrics.get(f"{base}_{end}{kind}", value - spread if end == "low" else value + spread)
