"""The streams of browsers: what cannot be told of one migration keeps nothing else from being told."""

import asyncio
from typing import Any

import orjson
import pytest

from services.monitoring.browsers import Browsers
from services.monitoring.picture import Picture
from services.monitoring.wall import Wall
from shared.clock import SystemClock
from tests.support.staged import BEGAN, view

NOW = BEGAN.timestamp()


def first_frame(picture: Picture, selected: str = "") -> dict[str, Any]:
    """What a browser that comes now is told first."""

    async def told() -> bytes:
        stream = Browsers(picture, Wall(SystemClock())).stream("", selected)
        await anext(stream)  # how soon to come back
        frame = await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        return frame

    frame: dict[str, Any] = orjson.loads(asyncio.run(told()).partition(b"data: ")[2])
    return frame


@pytest.mark.parametrize("selected", ["", "vol1", "vol2"])
def test_migration_that_cannot_be_told_leaves_the_others_their_stream(selected: str) -> None:
    picture = Picture("e")
    picture.told_progress(view("vol1", synced_bytes=10**30), NOW)
    picture.told_progress(view("vol2"), NOW)
    told = first_frame(picture, selected)
    assert [row["name"] for row in told["rows"]] == ["vol2"]
    assert told["detail"]["name"] == "vol2" if selected == "vol2" else selected or "detail" not in told
