"""The tables in the documentation are the code's."""

import re

from docs.generate import DOCUMENT, generated
from shared.migration.refusals import Code


def test_the_generated_parts_are_what_the_code_says_now() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert generated(text) == text, "run `make docs`"


def test_every_refusal_is_explained_to_operators() -> None:
    text = (DOCUMENT.parent / "OPERATING.md").read_text(encoding="utf-8")
    missing = [code for code in Code if f"`{code}`" not in text]
    assert not missing


def test_every_refusal_of_the_console_is_explained_to_operators() -> None:
    sources = (DOCUMENT.parents[1] / "services" / "console").glob("*.py")
    given = re.compile(r'ConsoleError\(\s*"([a-z-]+)"')
    found = {code for source in sources for code in given.findall(source.read_text(encoding="utf-8"))}
    assert {"usage", "timeout", "attempt-ended", "already-running"} <= found
    text = (DOCUMENT.parent / "OPERATING.md").read_text(encoding="utf-8")
    assert not [code for code in found if f"`{code}`" not in text]
