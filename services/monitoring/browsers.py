"""The browsers that look at the page: each gets what changed since it was last told, a few times a second at most.

Nothing is queued for a browser: it is owed the picture, not a message for each change. One that is slow is told less often.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import orjson

from services.monitoring.following import Following
from services.monitoring.frames import Frame, frame
from services.monitoring.picture import Picture
from services.monitoring.wall import Wall

_log = logging.getLogger(__name__)

PAUSE_S = 0.4  # between two frames
BEAT_S = 4.0  # something is sent at least so often, so that the page knows that we are there
BROWSERS_MAX = 100


class Browsers:
    """All that are connected."""

    def __init__(self, picture: Picture, wall: Wall) -> None:
        self.following: Following | None = None  # while there is a connection to NATS
        self._picture = picture
        self._wall = wall
        self._is_closing = False
        self._waiting: set[asyncio.Event] = set()
        self.count = 0

    def wake(self) -> None:
        """The picture has changed."""
        for event in self._waiting:
            event.set()

    def close(self) -> None:
        """End every stream."""
        self._is_closing = True
        self.wake()

    @contextmanager
    def place(self) -> Iterator[None]:
        """One of the places that there are, for a stream."""
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1

    async def stream(self, last_id: str, selected: str) -> AsyncIterator[bytes]:
        """Server-sent events for one browser, which has been told up to `last_id` before, if anything."""
        changed = asyncio.Event()
        self._waiting.add(changed)
        try:
            after = self._version_in(last_id)
            is_new = True
            yield b"retry: 1000\n\n"
            while not self._is_closing:
                changed.clear()
                await self._see_to_history(selected)
                told = frame(self._picture, after, selected, self._wall.now(), is_new=is_new)
                after, is_new = told["version"], False
                yield b"id: %b:%d\ndata: %b\n\n" % (self._picture.epoch.encode(), after, as_json(told))
                await asyncio.sleep(PAUSE_S)
                try:
                    async with asyncio.timeout(BEAT_S):
                        await changed.wait()
                except TimeoutError:
                    continue  # an empty frame is the beat
        finally:
            self._waiting.discard(changed)

    async def _see_to_history(self, selected: str) -> None:
        if selected and self.following is not None and self._picture.wants_history(selected):
            await self.following.read_history(selected)

    def _version_in(self, last_id: str) -> int | None:
        epoch, _, version = last_id.rpartition(":")
        if epoch != self._picture.epoch or not (version.isascii() and version.isdecimal()):
            return None
        return int(version)


def as_json(told: Frame) -> bytes:
    """A frame for the wire. What cannot be written is left out: one migration never takes the page from the others."""
    try:
        return orjson.dumps(told)
    except orjson.JSONEncodeError as error:
        _log.warning("something cannot be told to browsers, and is left out: %s", error)
    parts = {
        key: [each for each in part if _can_be_written(each)] if isinstance(part, list) else part
        for key, part in told.items()
    }
    return orjson.dumps({key: part for key, part in parts.items() if _can_be_written(part)})


def _can_be_written(part: object) -> bool:
    try:
        orjson.dumps(part)
    except orjson.JSONEncodeError:
        return False
    return True
