"""Shipped gin files with mistakes in them: each describes a configuration, or is refused in words."""

import re
import shutil
from pathlib import Path

import pytest
from helpers import mutants

from rrl.config import ginfile

TOKEN = re.compile(r"\n|[ \t]+|\w+|'[^'\n]*'|[^\w\s]")
ODD = (
    *("(", ")", "[", "]", "{", "}", "=", "==", ":", ",", ".", "..", "/", "//", "@", "@@", "%", "%%", "#", "'", '"'),
    *(
        "'''",
        "\\",
        "\\\n",
        "\n",
        "\t",
        "\r",
        "\0",
        "\f",
        "\x1b[0m",
        "\ufeff",
        "\u00a0",
        "\u200b",
        "\u202e",
        "\U0001f600",
    ),
    *(
        "__x__",
        "\U0001f600",
        "é",
        "ª",
        "²",
        "Ⅳ",
        "0",
        "-",
        "-1",
        "1e999",
        "0x",
        "0b1",
        "1j",
        "1_0",
        "007",
        "9" * 30,
        "9" * 5000,
        "nan",
    ),
    *("None", "True", "true", "()", "(,)", "((),)", "{}", "{[]: 1}", "{1: 2}", "b'a'", "f'{1}'", "r'\\'", "'\\x'"),
    *("'\\ud800'", "@A()", "@ResNet", "@ResNet()", "@a/b/ResNet()", "@gin.singleton()", "%gin.REQUIRED", "%a.b", "%x"),
    *(
        "lambda: 0",
        "import os",
        "from os import path",
        "include",
        "include ''",
        "include 'a.gin'",
        "include '/'",
        "__x__",
    ),
    *("include '/dev/zero'", f"include '{'x' * 5000}'", "include 'a\0b'", "include '~x/a'", "include 'env/adroit_pen'"),
)
ROOTS = {"sweeps": "Sweep", "pretrain": "Pretraining", "probe": "Probe"}
"""By folder, what its files describe, if not runs."""
BLOCKS = (
    "x = %x\n",
    "x = %y\ny = %x\nSeed.x = %x\n",
    "Experiment.seed = %x\nx = %y\ny = (%x, %x)\n",
    "".join(f"x{n} = (%x{n + 1}, %x{n + 1})\n" for n in range(40)) + "x40 = 1\nExperiment.seed = %x0\n",
    "Experiment.evaluators = (@a/BlindControl(), @a/a/BlindControl())\na/a/BlindControl.when = 'end'\n",
    "Experiment.env = @Experiment()\n",
    f"Experiment.seed = {'(' * 3000}{')' * 3000}\n",
    f"Experiment.seed = {'[' * 90}{']' * 90}\n",
    f"Experiment.seed = {'-' * 3000}1\n",
    f"Experiment.seed = {'1 + ' * 3000}1\n",
    f"Experiment.seed = '{'x' * 10**6}'\n",
    f"{'a/' * 3000}Experiment.seed = 1\n",
    f"{'a.' * 3000}seed = 1\n",
    "Experiment:\n  seed = 1\n    seed = 2\n",
    "Experiment:\n\tseed = 1\n  num_envs = 2\n",
    "Experiment:\n",
    "".join(f"x{n} = %x{n + 1}\n" for n in range(2000)) + "x2000 = 1\nExperiment.seed = %x0\n",
    f"Experiment.evaluators = ({'@SuccessRate(), ' * 3000})\n",
    f"Experiment.seed = {'@' * 3000}\n",
    f"Experiment.seed = {'a ' * 3000}\n",
    f"Experiment.seed = {chr(39) * 2 * 20000}\n",
    f"Experiment.seed = ({(chr(39) * 2 + ' #' + chr(10)) * 9000})\n",
    f"{'x' * 10**5}\n",
    f"Experiment.seed = '{'x' * 10**5}\n",
    f"include '{'../' * 3000}a.gin'\n",
)


@pytest.fixture(scope="module")
def texts():
    """The shipped files, by name."""
    ginfile.bound("encoder/timm_dinov2_small", "encoder")  # imports what takes seconds: no mutant's fault
    ginfile.bound("env/gym_pusher", "env")
    return {name: path.read_text() for name, path in ginfile.shipped().items()}


def other_tokens(rng, text, others):
    tokens = TOKEN.findall(text)
    at, to = rng.randrange(len(tokens)), rng.randrange(len(tokens))
    kind = rng.choice(("lost", "twice", "swapped", "odd", "odd", "odd instead", "odd instead", "of another file"))
    what = f"token {at} ({tokens[at]!r}) {kind}"
    if kind == "lost":
        del tokens[at]
    elif kind == "twice":
        tokens.insert(at, tokens[at])
    elif kind == "swapped":
        tokens[at], tokens[to] = tokens[to], tokens[at]
    else:
        new = rng.choice(TOKEN.findall(rng.choice(others)) if kind == "of another file" else ODD)
        what += f": {new!r:.60}"
        tokens[at : at + (kind != "odd")] = [new]
    return what, "".join(tokens)


def other_lines(rng, text, others):
    lines = text.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    kind = rng.choice(("lost", "twice", "moved", "indented", "value", "value", "block", "block", "of another file"))
    what = f"line {at} {kind}"
    if kind == "lost":
        del lines[at]
    elif kind == "twice":
        lines.insert(at, lines[at])
    elif kind == "moved":
        lines.insert(rng.randrange(len(lines)), lines.pop(at))
    elif kind == "indented":
        lines[at] = rng.choice(("  ", "\t", " \t ")) + lines[at]
    elif kind == "value":
        key, _, _ = lines[at].partition("=")
        new = rng.choice(ODD)
        what, lines[at] = f"{what} {new!r:.60}", f"{key}= {new}\n"
    else:
        new = rng.choice(BLOCKS if kind == "block" else rng.choice(others).splitlines(keepends=True))
        what += f": {new!r:.60}"
        lines.insert(at, new)
    return what, "".join(lines)


def mutant(rng, name, texts, path):
    """Writes a shipped gin file with one to four mistakes; returns what was done."""
    others = list(texts.values())
    text, told = texts[name], [name]
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not text.strip():
            break
        what, text = rng.choice((other_tokens, other_lines))(rng, text, others)
        told.append(what)
    data = text.encode(errors="replace")
    if rng.random() < 0.1:
        what, data = mutants.damaged(rng, data)
        told.append(what)
    path.write_bytes(data)
    return "; ".join(told)


def described(path):
    """What `rrl check` asks."""
    ginfile.load(path, root=ginfile.root_together([str(path)]))


def test_includes_that_double(tmp_path):
    for n in range(30):
        (tmp_path / f"{n}.gin").write_text(2 * f"include '{n + 1}.gin'\n")
    (tmp_path / "30.gin").write_text("Experiment.seed = 1\n")
    assert not mutants.trial(lambda: described(tmp_path / "0.gin"))


def test_includes_of_includes(tmp_path):
    for n in range(1000):
        (tmp_path / f"{n}.gin").write_text(f"include '{n + 1}.gin'\n")
    assert not mutants.trial(lambda: described(tmp_path / "0.gin"))


def test_what_is_no_text(tmp_path):
    (tmp_path / "a.gin").symlink_to("/dev/zero")
    (tmp_path / "b.gin").write_text("include 'a.gin'\n")
    with (tmp_path / "c.gin").open("wb") as file:
        file.truncate(2**40)
    for name in "abc":
        assert not mutants.trial(lambda: described(tmp_path / f"{name}.gin"))  # noqa: B023


def test_mutants(texts, exported, tmp_path, monkeypatch):
    monkeypatch.chdir(exported)
    shutil.copytree(ginfile.shipped()["env/adroit_door"].parents[1], tmp_path / "gin")
    made = {}

    def make(rng):
        name = rng.choice(list(texts))
        made["path"] = tmp_path / "gin" / Path(name).parent / "a.gin"
        return mutant(rng, name, texts, made["path"])

    def read():
        ginfile.load(made["path"], root=ROOTS.get(made["path"].parent.name, "Experiment"))

    assert not mutants.faults(1000, make, read)
