"""The tables in the documentation are the code's."""

from docs.generate import DOCUMENT, generated
from shared.migration.refusals import Code


def test_the_generated_parts_are_what_the_code_says_now() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert generated(text) == text, "run `make docs`"


def test_every_refusal_is_explained_to_operators() -> None:
    text = (DOCUMENT.parent / "OPERATING.md").read_text(encoding="utf-8")
    missing = [code for code in Code if f"`{code}`" not in text]
    assert not missing
