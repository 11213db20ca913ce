"""Draws docs/rlpd_door.png: runs of RLPD on the door over the authors' RRL curves.

    python scripts/draw_successor.py LABEL=RUN_FOLDER [LABEL=RUN_FOLDER ...]

`train/success` against environment steps on a logarithmic axis; the legend says how long each run took.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt

from rrl.reproduce import published

OUT = Path(__file__).resolve().parents[1] / "docs" / "rlpd_door.png"


def main(arguments: list[str]) -> None:
    """One curve for each argument."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    curves = next(each for each in published.load("fig4", "door") if each.metric == "train/success")
    for i, (xs, ys) in enumerate(curves.seeds.values()):
        axes.plot(xs, ys, color="0.6", lw=1, label=None if i else "RRL, the authors' three seeds (39 to 41 h each)")
    for argument in arguments:
        label, _, folder = argument.partition("=")
        rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
        points = [(r["step"], r["metrics"]["train/success"]) for r in rows if "train/success" in r["metrics"]]
        # A run's iteration is a dozen episodes: means of five.
        smooth = [sum(y for _, y in points[max(0, i - 4) : i + 1]) / min(i + 1, 5) for i in range(len(points))]
        hours = (rows[-1]["time"] - rows[0]["time"]) / 3.6e6
        axes.plot([x for x, _ in points], smooth, lw=2, label=f"{label} ({hours:.1f} h)")
    axes.set(xscale="log", xlabel="environment steps", ylabel="success of sampled actions, %", ylim=(-2, 102))
    figure.legend(loc="outside lower center", fontsize=8)
    figure.savefig(OUT, dpi=120)


if __name__ == "__main__":
    main(sys.argv[1:])
