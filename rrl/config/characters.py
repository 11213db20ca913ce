"""Characters that look like those of gin's grammar, or like nothing at all, and are others."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_SIGNS = str.maketrans({**dict.fromkeys("“”„‟″＂‘’‚‛′＇`´", "'"), **dict.fromkeys("‐‑‒–—−", "-")})  # noqa: RUF001
_LETTERS = str.maketrans("АВЕЅІЈКМНОРСТХаеѕіјорсухԁΑΒΕΖΗΙΚΜΝΟΡΤΥΧο", "ABESIJKMHOPCTXaesijopcyxdABEZHIKMNOPTYXo")  # noqa: RUF001
_QUOTED = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")
_ASCII_AND_OTHERS = re.compile(r"(?=\w*[A-Za-z])(?=\w*[^\W\x00-\x7f])\w+")


def plain(text: str) -> str:
    """The text in the ASCII characters that its own look like, and without invisible ones; a word that cannot be
    written so stays as it is."""
    seen = unicodedata.normalize("NFKC", "".join(c for c in text if not _invisible(c)).translate(_SIGNS))
    return re.sub(r"\w+", lambda word: latin if (latin := word[0].translate(_LETTERS)).isascii() else word[0], seen)


def foreign(line: str) -> str:
    """In words, the characters of a line, but for its comment, that gin has no use for; empty if there are none.

    In a string every letter may stand, but nothing invisible, and no word of two alphabets.
    """
    names = dict.fromkeys(f"U+{ord(c):04X} ({_name(c)})" for c in _foreign(line))
    return f"{', '.join(names)} in it: type the line anew" if names else ""


def _foreign(line: str) -> Iterator[str]:
    strings: list[str] = []

    def keep(match: re.Match[str]) -> str:
        strings.append(match[0])
        return "''"

    code = _QUOTED.sub(keep, line).partition("#")[0]
    for text in strings[: code.count("''")]:
        mixed = "".join(word for word in _ASCII_AND_OTHERS.findall(text) if plain(word).isascii())
        yield from (c for c in text if _invisible(c) or (c in mixed and not c.isascii() and _other_alphabet(c)))
    yield from (c for c in code if not c.isascii() or _invisible(c))


def _invisible(c: str) -> bool:
    return unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") and c not in "\t\n\r"


def _other_alphabet(c: str) -> bool:
    return not _name(c).startswith("LATIN")


def _name(c: str) -> str:
    return unicodedata.name(c, "a control character")
