"""Characters that look like others: which a line holds, and what it would be without them."""

import pytest

from rrl.config import ginfile
from rrl.config.characters import foreign, plain


@pytest.mark.parametrize(
    ("line", "named", "meant"),
    [
        ("Ad\u043eroit.task", "U+043E (CYRILLIC SMALL LETTER O)", "Adoroit.task"),
        ("Adroit.task = 'p\u0435n'", "U+0435 (CYRILLIC SMALL LETTER IE)", "Adroit.task = 'pen'"),
        ("\u0391droit.task = 'pen'", "U+0391 (GREEK CAPITAL LETTER ALPHA)", "Adroit.task = 'pen'"),
        (
            "Adroit.task = \u2018pen\u2019  # \u2026",
            "U+2018 (LEFT SINGLE QUOTATION MARK), U+2019",
            "Adroit.task = 'pen'",
        ),
        ("x = \u22121", "U+2212 (MINUS SIGN)", "x = -1"),
        ("x = \uff13", "U+FF13 (FULLWIDTH DIGIT THREE)", "x = 3"),
        ("x\u200b = 3", "U+200B (ZERO WIDTH SPACE)", "x = 3"),
        ("x\u00a0= 3", "U+00A0 (NO-BREAK SPACE)", "x = 3"),
        ("x = 'a\u200bb'", "U+200B (ZERO WIDTH SPACE)", "x = 'ab'"),
        ("x = 3\0", "U+0000 (a control character)", "x = 3"),
    ],
)
def test_each_is_named(line, named, meant):
    assert named in foreign(line)
    assert plain(line).startswith(meant)


@pytest.mark.parametrize(
    "line",
    [
        "DemoSet.source = 'donn\u00e9es/gr\u00f6\u00dfe.npz'",
        "DemoSet.source = '\u043c\u043e\u0438/\u0434\u0435\u043c\u043e.npz'",
        'DemoSet.source = "\u6a21\u578b\'s 1"  # \u0410',
        "\tx = 3  # \u0410droit, \u2018quoted\u2019",
        "x = '# no comment'",
    ],
)
def test_strings_and_comments_may_hold_any_letter(line):
    assert foreign(line) == ""


def test_an_error_names_them_below_the_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ginfile.ConfigError) as caught:
        ginfile.loads("include 'adroit_door_state.gin'\nDAPG.g\u0430mma = 0.9\n", "x.gin")
    place, line, named, hint = str(caught.value).split("\n")
    assert place == "x.gin:2: DAPG has no field g\u0430mma" and line.strip() == "DAPG.g\u0430mma = 0.9"
    assert named == "  U+0430 (CYRILLIC SMALL LETTER A) in it: type the line anew"
    assert hint.startswith("  did you mean gamma?")
