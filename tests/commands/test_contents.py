"""`rrl list files`: the shipped gin files, by what their headers say of them."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from rrl import cli
from rrl.commands import contents
from rrl.config import ginfile


def test_a_header_has_parts(tmp_path: Path) -> None:
    path = tmp_path / "x.gin"
    path.write_text(
        "# RRL on a door: figures 6 and\n#   7's encoder (section 7.4), table 2.1\n# and more.\n# Expected: 98 %\n"
        "#   in 8M: steps.\n# Cost: days. Offline: no.\n# Needs a file.\n# Camera: top.\n\n# Not: this.\nA.b = 1\n"
    )
    header = contents.header("x", path)
    assert header.what == "RRL on a door: figures 6 and 7's encoder (section 7.4), table 2.1 and more."
    assert (header.expected, header.cost) == ("98 % in 8M: steps.", "days. Offline: no.")
    assert header.figures == ["figure 6", "figure 7"]


def test_every_file_is_told_below_the_figures_that_its_header_names() -> None:
    groups = contents.groups()
    names = {title: [each.name for each in files] for title, files in groups.items()}
    assert {name for files in names.values() for name in files} == ginfile.shipped().keys()
    assert {"adroit_door_resnet34", "adroit_pen_ferm", "ablations/door_npg_state", "sweeps/fig4_pen"} <= {
        *names["figure 4"]
    }
    assert "ablations/pen_resnet18" in names["figure 6"] and "ablations/pen_resnet18" in names["figure 7"]
    assert "mjrl_reacher_npg_state" in names["figure 10"] and "dmc_walker_walk_rad" in names["table 1"]
    assert names["quickstart"] == ["quickstart"] and "adroit_door_rlpd_state" in names["adroit"]
    assert "env/adroit_door" in names["parts of runs, env"]
    titles = list(names)
    assert titles.index("figure 4") < titles.index("figure 10") < titles.index("table 1") < titles.index("adroit")
    assert titles.index("adroit") < titles.index("results") < titles.index("parts of runs, encoder")


def test_lines_fit_the_width() -> None:
    for width in (60, 80, 120, 200):
        rows: list[str] = []
        contents.show(rows.append, width)
        listed = [row for row in rows[3:] if row.startswith("  ")]
        names = max(len(name) for name in ginfile.shipped())
        assert all(len(row) <= max(width, names + 34) for row in listed)
        assert sum(len(files) for files in contents.groups().values()) == len(listed)
    (row,) = (row for row in listed if row.startswith("  adroit_door_resnet34 "))
    assert "RRL(ResNet34) on Adroit door" in row and "98 % success" in row and "40 to 63 hours" in row


def test_without_a_terminal_nothing_is_cut() -> None:
    output = CliRunner().invoke(cli.app, ["list", "files"]).output
    rows = {row.split("\t")[0].strip(): row.split("\t")[1:] for row in output.splitlines() if "\t" in row}
    header = contents.header("quickstart", ginfile.shipped()["quickstart"])
    assert rows["quickstart"] == [header.what, header.expected, header.cost]
    assert rows["probe/adroit_door"][2].startswith("46 minutes")


def test_list_alone_is_shorter_and_names_every_file() -> None:
    output = CliRunner().invoke(cli.app, ["list"]).output
    words = set(output.replace(",", " ").split())
    assert ginfile.shipped().keys() <= words
    assert len(output.splitlines()) < 200
