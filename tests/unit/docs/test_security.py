"""The table of roles in the documentation is the one that the server's file is made of."""

from docs.security import DOCUMENT, generated


def test_the_roles_are_what_the_code_says_now() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert generated(text) == text, "run `make docs`"
