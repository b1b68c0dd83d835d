"""The keeper of one migration's region map: brings the marks to disk, in rounds, and knows whether the map may be believed.

All writes that wait for a mark share one round: the changed pages, written and synced outside the loop. If the map cannot be
written, the witness says that it is not to be trusted before any of those writes goes on; then nothing is recorded any
more, and the next resync is full. The application never sees an error from here.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from services.write_cloning.map_files import MapFile, MapFiles
from services.write_cloning.region_map import (
    REGIONS_PER_PAGE,
    Header,
    UntrustedMapError,
    encode_header,
    encode_map,
    encode_page,
    full_bits,
)
from services.write_cloning.volume.marks import DUE, HOT, Marks
from shared.logs.about import about
from shared.migration.refusals import InvariantError

log = logging.getLogger(__name__)

UNWRITABLE = "the region map could not be written"
TURNED_OFF = "the region map is turned off (host.region_map)"

_IS_DUE = bytes(state == DUE for state in range(256))

Distrust = Callable[[str], Awaitable[None]]
"""Makes it durable that no map is trusted any more, and why; however long that takes."""


class MapKeeper:
    """Holds the marks, and the file that they are in, if any. `marks` changes only between writes."""

    def __init__(
        self, name: str, region_count: int, files: MapFiles | None, *, full_because: str = ""
    ) -> None:
        """Begin without a map: every region may differ."""
        self.name = name
        self.marks = Marks.of_nothing(region_count)
        self.full_because = full_because or ("" if files else TURNED_OFF)  # why a sync would copy everything
        self._region_count = region_count
        self._files = files
        self._file: MapFile | None = None
        self._header: Header | None = None
        self._wanted = asyncio.Event()
        self._writing = asyncio.Lock()

    @property
    def map_id(self) -> str:
        """The map for the witness to trust; empty when there is none."""
        return self._header.map_id if self._header is not None else ""

    @property
    def due_regions(self) -> bytes:
        """For each region, whether it has to be copied as things are."""
        return bytes(self.marks.states.translate(_IS_DUE))

    # ------------------------------------------------------------------ life

    async def begin(self, header: Header, bits: bytes | bytearray | None, *, all_due: bool) -> None:
        """Begin a map, durable on return, with these bits, or with all where there are none.

        What is set is to be copied if `all_due`; otherwise it has been written on both sides, and grows clean with time.
        Where the map cannot be written there is none, and no error.
        """
        if self._files is None:
            return
        if bits is None:
            bits = full_bits(header.region_count)
        try:
            async with self._writing:
                await self.release()
                file = await self._files.create(f"{self.name}.{header.map_id}", encode_map(header, bits))
        except (OSError, UntrustedMapError) as error:
            log.warning("no region map is kept: %s", error, extra=about(self.name))
            self.full_because = f"{UNWRITABLE} ({error})"
            return
        self._file, self._header = file, header
        self.full_because = ""
        self.marks = Marks(
            header.region_count,
            bits,
            state=DUE if all_due else HOT,
            regions_per_page=REGIONS_PER_PAGE,
            want_round=self._wanted.set,
        )

    async def enter(self, attempt: int, flag_digest: str) -> None:
        """Prepare the map that is kept for another attempt, durably. No write is under way.

        If nothing comes of the attempt, the map is good all the same: only its header speaks of one that is to come.
        """
        async with self._writing:
            if self._header is None or self._file is None:
                return
            header = replace(self._header, attempt=attempt, flag_digest=flag_digest)
            try:
                await self._file.write([(0, encode_header(header))])
            except (OSError, UntrustedMapError) as error:
                # What is due is known all the same; but nobody may believe the file, and the witness is about to say so.
                self.void(f"{UNWRITABLE} ({error})")
            else:
                self._header = header

    def void(self, because: str) -> None:
        """Keep the map no longer: the witness says so by now."""
        self.full_because = because
        if self._header is not None:
            self._header = None
            self._wanted.set()  # the file is closed from there: what is being written to it is waited for
            self.marks.give_up()

    async def tidy(self) -> None:
        """Remove every map of this migration but the one that is kept. Only once the witness says which that is."""
        if self._files is not None:
            await self._files.remove_all(self.name, but=f"{self.name}.{self.map_id}" if self.map_id else "")

    async def save(self, distrust: Distrust) -> None:
        """At a clean stop, with no write under way and both sides flushed: only what is still to be copied differs."""
        if self.marks.is_recording:
            self.marks.clean_all_but_due()
            await self._round(distrust)

    async def release(self) -> None:
        """Let go of the file."""
        file, self._file = self._file, None
        if file is not None:
            await file.close()

    # ------------------------------------------------------------------ rounds

    async def run(self, distrust: Distrust) -> None:
        """Write what is asked for, for ever."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await self._round(distrust)

    async def _round(self, distrust: Distrust) -> None:
        async with self._writing:
            if self._header is None:
                await self.release()
                return
            file, marks = self._file, self.marks
            if file is None:
                raise InvariantError(f"{self.name}: a region map is kept in no file")
            pieces = [encode_page(self.map_id, page, marks.bits) for page in marks.begin_round()]
            try:
                if pieces:
                    await file.write(pieces)
            except OSError as error:
                await self._give_up(error, distrust)
            else:
                marks.end_round()

    async def _give_up(self, error: OSError, distrust: Distrust) -> None:
        log.error("%s: %s", UNWRITABLE, error, extra=about(self.name))
        because = f"{UNWRITABLE} ({error.strerror or error})"
        if self._header is not None:  # else a decision has said so before
            await distrust(because)
            self.void(because)
