"""Rates, sizes and times, as people write and read them. Pure."""

import math
import re

_FACTORS = {
    "b": 1,
    "kb": 1000, "mb": 1000**2, "gb": 1000**3, "tb": 1000**4,
    "kib": 1024, "mib": 1024**2, "gib": 1024**3, "tib": 1024**4,
}  # fmt: skip
_RATE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[A-Za-z]*)(?:/s)?")
_KIB = 1024
_TWO_DIGITS = 10  # from here on one decimal is enough
_BINARY_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")
RATE_RULE = "a number and a unit of bytes per second, such as 50MiB/s, 800KB/s or 1.5GiB/s; or off"
RATE_MAX_BYTES_PER_S = 2**63 - 1


class UnitError(ValueError):
    """A text that is no rate; the message is a whole sentence."""


def parse_rate(text: str) -> int | None:
    """Bytes per second; None for `off`.

    Raises:
        UnitError: the text is no rate, or leaves open which one is meant.
    """
    if text.strip().lower() == "off":
        return None
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise UnitError(f"{text!r} is no rate: give {RATE_RULE}.")
    rate = round(float(match["number"]) * _factor(match["unit"], text))
    if rate < 1:
        raise UnitError("A rate of zero would never end: use `cutover pause`, or `off` to lift the limit.")
    if rate > RATE_MAX_BYTES_PER_S:
        raise UnitError(f"{text!r} is more than any device can do: use `off` to lift the limit.")
    return rate


def _factor(unit: str, text: str) -> int:
    if unit in {"b", "Kb", "Mb", "Gb", "Tb", "kb"} or unit.endswith("bit"):
        raise UnitError(
            f"{text!r} reads as bits: Cutover counts bytes, so write {unit[0].upper()}B or {unit[0].upper()}iB."
        )
    factor = _FACTORS.get(unit.lower())
    if factor is None:
        wanted = "KB, MB, GB (powers of 1000) or KiB, MiB, GiB (powers of 1024)"
        raise UnitError(
            f"{text!r} has {'the unknown unit ' + repr(unit) if unit else 'no unit'}: write {wanted}."
        )
    return factor


def bytes_text(count: float) -> str:
    """A size with three digits or so: `512 MiB`, `1.50 GiB`, `17 bytes`."""
    if count < _KIB:
        return "1 byte" if count == 1 else f"{count:.0f} bytes"
    power = min(int(math.log(count, _KIB)), len(_BINARY_UNITS))
    scaled, unit = count / _KIB**power, _BINARY_UNITS[power - 1]
    decimals = 0 if scaled == int(scaled) else 2 if scaled < _TWO_DIGITS else 1
    return f"{scaled:.{decimals}f} {unit}"


def rate_text(bytes_per_s: float) -> str:
    """A rate: `48.3 MiB/s`."""
    return f"{bytes_text(bytes_per_s)}/s"


def duration_text(seconds: float) -> str:
    """A time to come, no finer than a second: `42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    hours, minutes_rest = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_rest:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
