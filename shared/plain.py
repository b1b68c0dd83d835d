"""Text that came from elsewhere, made safe to show or to log: no escape sequence or line break in it is obeyed."""

import unicodedata

FOREIGN_CHARACTERS_MAX = 200  # of a subject or a name that somebody else chose, in a sentence

_UNSHOWN = frozenset(
    {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
)  # Unicode categories that draw nothing, or lie


def plain(text: str) -> str:
    """The text with every character that a terminal would obey, or hide, written out in hexadecimal."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def shortened(text: str) -> str:
    """The text as far as it is worth telling: a peer's subject or name may have thousands of characters."""
    if len(text) <= FOREIGN_CHARACTERS_MAX:
        return text
    return f"{text[:FOREIGN_CHARACTERS_MAX]}… ({len(text)} characters)"


def _shown(character: str) -> str:
    if unicodedata.category(character) not in _UNSHOWN:
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
