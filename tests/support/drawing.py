"""Renderables as text."""

import io

from rich.console import Console, RenderableType


def drawn(renderable: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=400, markup=False, emoji=False, highlight=False, force_terminal=False).print(
        renderable
    )
    return out.getvalue()
