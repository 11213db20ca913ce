"""Pages of the documentation as a reader follows them: the files and commands in their indented blocks."""

import re
import shlex
import textwrap
from pathlib import Path

from typer.testing import CliRunner

from rrl import cli

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"\n\n((?:    .*\n|\n(?=\n*    ))+)")


def blocks(text):
    """The indented blocks of a page."""
    return [textwrap.dedent(block) for block in BLOCK.findall(text)]


class Reader:
    """Makes the files of a page, whose first line is their name, and types its commands, in the current folder.

    `quickly` gives what is set for a command beside what the page says, so that it takes seconds.
    """

    def __init__(self, quickly):
        self.quickly, self.outputs = quickly, {}

    def follow(self, page):
        """All of a page of docs/, in order; returns what each command printed."""
        for block in blocks((ROOT / "docs" / page).read_text()):
            if named := re.match(r"# (\S+\.\w+)\n", block):
                Path(named[1]).write_text(block)
            elif block.startswith("$ "):
                line, *shown = masked(block).splitlines()
                printed = masked(self.type(block.splitlines()[0][2:])).splitlines()
                assert [text for text in shown if text not in printed] == [], line
            else:
                for line in block.splitlines():
                    self.type(line)
        return self.outputs

    def type(self, line):
        """Run one command; `RUN` is the newest run."""
        words = [newest()[:6] if word == "RUN" else word for word in shlex.split(line)]
        if words[0] == "pip":
            return self.install(words[1:])
        if words[0] == "python":
            return self.python(words[1:])
        sets = [part for setting in self.quickly(words[1:]) for part in ("--set", setting)]
        done = CliRunner().invoke(cli.app, [*words[1:], *sets], catch_exceptions=False)
        assert done.exit_code == 0, f"{line}\n{done.output}"
        self.outputs[line] = done.output
        return done.stdout

    def install(self, words):
        raise NotImplementedError

    def python(self, words):
        raise NotImplementedError


def newest():
    """The id of the newest run in the current folder."""
    return max(Path("runs").glob("*/run.json"), key=lambda path: path.stat().st_mtime).parent.name


def masked(text):
    """Without fractions, which differ between versions of simulators."""
    return re.sub(r"-?\d+\.\d+", "#", text)
