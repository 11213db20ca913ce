"""How much a configuration may ask of who reads it: far more than anybody writes, and little enough to be read in a
second, whoever wrote it."""

CHARACTERS = 2**18
"""Of a text."""
INCLUDED = 100
"""Texts that one includes, and those include, one counted as often as it is read."""
MACROS = 2000
"""Values that go through macros, one counted as often as it is used."""
NESTED = 50
"""Macros on the way to one value."""
JOINED = 100
"""Strings side by side."""
GUESSED = 400
"""Characters of a line that errors guess about: beyond, they say what is wrong and not what was meant."""
