"""The state diagram as SVG, drawn from the table of transitions that the services decide by. Pure.

States stand in a row, in the order of their life; what leads on is drawn above them, what leads back below. Every state and every
arrow has a name by which the page finds it, to show where a migration is and how it got there.
"""

from html import escape

from shared.migration.states import State
from shared.migration.table import TRANSITIONS, Transition, Trigger

_STEP, _WIDTH, _HEIGHT, _TOP, _LEFT = 184, 144, 42, 56, 6
_TOTAL_HEIGHT = 190
_ROUNDING = 21
_LANE = 26  # between two arcs that lead back
_SPREAD = 16  # between two arrows that meet at one state
_ACCESSIBLE = 'role="img" aria-labelledby="diagram-title" class="diagram"'
_BACK = {Trigger.ABORT, Trigger.TARGET_FAULT}


def diagram_svg() -> str:
    """The whole drawing."""
    order = list(State)
    width = 2 * _LEFT + _STEP * (len(order) - 1) + _WIDTH
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_TOTAL_HEIGHT}" {_ACCESSIBLE}>',
        '<title id="diagram-title">States of a migration</title>',
        "<defs>" + "".join(_marker(kind) for kind in ("on", "back")) + "</defs>",
    ]
    parts += [_arrow(row) for row in TRANSITIONS if _is_drawn(row)]
    parts += [_state(state, at) for at, state in enumerate(order)]
    return "".join([*parts, "</svg>"])


def _is_drawn(row: Transition) -> bool:
    """All but the beginning and the end; a fault leads back by the way of an abort, and is told by it."""
    return row.before is not None and row.after is not None and row.trigger is not Trigger.TARGET_FAULT


def _marker(kind: str) -> str:
    return (
        f'<marker id="tip-{kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 8 4 0 8z" class="tip {kind}"/></marker>'
    )


def _state(state: State, at: int) -> str:
    x = _LEFT + at * _STEP
    return (
        f'<g class="state" data-state="{escape(state)}"><rect x="{x}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'rx="{_ROUNDING}"/><text x="{x + _WIDTH / 2:g}" y="{_TOP + _HEIGHT / 2 + 4.5:g}">{escape(state)}</text></g>'
    )


def _arrow(row: Transition) -> str:
    order = list(State)
    if row.before is None or row.after is None:
        return ""
    begin, end = order.index(row.before), order.index(row.after)
    if begin == end:
        path, x, y = _loop(begin)
    elif row.trigger in _BACK:
        path, x, y = _lane(begin, end)
    else:
        path, x, y = _straight(begin, end)
    kind = "on" if end > begin else "back"
    label = "abort, target fault" if row.trigger is Trigger.ABORT else row.trigger.replace("-", " ")
    triggers = f"{row.trigger} {Trigger.TARGET_FAULT}" if row.trigger is Trigger.ABORT else row.trigger
    anchor = ' class="start"' if row.trigger in _BACK else ""
    return (
        f'<g class="arrow {kind}" data-from="{escape(row.before)}" data-to="{escape(row.after)}" '
        f'data-triggers="{escape(triggers)}"><path d="{path}" marker-end="url(#tip-{kind})"/>'
        f'<text x="{x:g}" y="{y:g}"{anchor}>{escape(label)}</text></g>'
    )


def _straight(begin: int, end: int) -> tuple[str, float, float]:
    """Between neighbours: what leads on a little above the middle, what leads back a little below."""
    y = _TOP + _HEIGHT / 2 + (-_SPREAD / 2 if end > begin else _SPREAD / 2)
    right, left = _LEFT + max(begin, end) * _STEP, _LEFT + min(begin, end) * _STEP + _WIDTH
    x = (left + right) / 2
    if end > begin:
        return f"M{left} {y:g}H{right - 2}", x, _TOP - 8
    return f"M{right} {y:g}H{left + 2}", x, _TOP + _HEIGHT + 16


def _loop(at: int) -> tuple[str, float, float]:
    x = _LEFT + at * _STEP + _WIDTH / 2
    return (
        f"M{x - 22:g} {_TOP}C{x - 30:g} {_TOP - 36} {x + 30:g} {_TOP - 36} {x + 22:g} {_TOP - 2}",
        x,
        _TOP - 32,
    )


def _lane(begin: int, end: int) -> tuple[str, float, float]:
    """Far back to the beginning, each on a lane of its own below the states."""
    bottom, y = _TOP + _HEIGHT, _TOP + _HEIGHT + 28 + (begin - 1) * _LANE
    x, home = _LEFT + begin * _STEP + _WIDTH / 2, _LEFT + end * _STEP + _WIDTH / 2 + (2 - begin) * _SPREAD
    return f"M{x:g} {bottom}V{y - 10}q0 10-10 10H{home + 10:g}q-10 0-10-10V{bottom + 2}", x - 16, y - 5
