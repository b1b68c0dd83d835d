"""Sizes in words. Pure."""

_KIB = 1024
_TEN = 10
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def size_words(count: float) -> str:
    """`512 MiB`, `1.5 GiB`, `17 bytes`."""
    if count < _KIB:
        return "1 byte" if count == 1 else f"{count:.0f} bytes"
    scaled, unit = count / _KIB, 0
    while scaled >= _KIB and unit < len(_UNITS) - 1:
        scaled, unit = scaled / _KIB, unit + 1
    return (
        f"{scaled:.1f}".removesuffix(".0") + f" {_UNITS[unit]}"
        if scaled < _TEN * _TEN
        else f"{scaled:.0f} {_UNITS[unit]}"
    )
