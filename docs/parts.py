"""Puts generated parts between their markers in a page: `<!-- NAME: generated -->` and `<!-- end -->`."""

import re
from collections.abc import Callable, Mapping


def filled(text: str, parts: Mapping[str, Callable[[], str]], page: str) -> str:
    """The text with every part as it is now. `page` names it in an error.

    Raises:
        ValueError: the markers of a part are missing.
    """
    for name, part in parts.items():
        pattern = re.compile(rf"(<!-- {name}: generated -->\n).*?(\n<!-- end -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"{page} has no markers for {name}")
        made = part()
        text = pattern.sub(lambda found, made=made: f"{found[1]}{made}{found[2]}", text)  # type: ignore[misc]
    return text
