"""Rates as operators write them; sizes and times as they read them."""

import pytest

from services.console.units import UnitError, bytes_text, duration_text, parse_rate, rate_text


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("50MiB/s", 50 << 20),
        ("50 MiB/s", 50 << 20),
        ("50mib", 50 << 20),
        ("1.5GiB/s", 3 << 29),
        ("800KB/s", 800_000),
        ("2MB", 2_000_000),
        ("1TiB/s", 1 << 40),
        ("4096B/s", 4096),
        ("off", None),
        (" OFF ", None),
    ],
)
def test_rate_is_read(text: str, rate: int | None) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("50", "no unit"),
        ("50M", "unknown unit 'M'"),
        ("50Mb/s", "reads as bits"),
        ("50Mbit/s", "reads as bits"),
        ("50kb/s", "reads as bits"),
        ("0MiB/s", "cutover pause"),
        ("0.0000001KB/s", "cutover pause"),
        ("-5MiB/s", "is no rate"),
        ("nan", "is no rate"),
        ("1e9MiB/s", "is no rate"),
        ("50MiB/min", "is no rate"),
        ("", "is no rate"),
        ("99999999999999TiB/s", "more than any device"),
    ],
)
def test_what_is_no_rate_is_told_in_words(text: str, words: str) -> None:
    with pytest.raises(UnitError, match=words):
        parse_rate(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"), (1, "1 byte"), (1023, "1023 bytes"), (1024, "1 KiB"), (1536, "1.50 KiB"),
        (512 << 20, "512 MiB"), ((512 << 20) + 1, "512.0 MiB"), (1 << 50, "1 PiB"), (1 << 70, "1048576 PiB"),
    ],
)  # fmt: skip
def test_size_is_readable(count: int, text: str) -> None:
    assert bytes_text(count) == text


def test_rate_is_readable() -> None:
    assert rate_text(48.3 * (1 << 20)) == "48.3 MiB/s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (42, "42 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
        (-1, "0 s"),
    ],
)
def test_duration_is_readable(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
