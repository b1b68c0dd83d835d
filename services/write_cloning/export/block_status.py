"""Answers to block status requests. The slow path: a task for each."""

from collections.abc import Mapping

from services.write_cloning.export.exported import ExportedVolume
from services.write_cloning.export.limits import STATUS_EXTENTS
from shared.nbd import replies


async def status_chunks(
    volume: ExportedVolume,
    contexts: Mapping[int, str],
    cookie: int,
    offset: int,
    length: int,
    *,
    only_one: bool,
) -> list[bytes]:
    """The whole reply: a chunk for each metadata context that was negotiated.

    A reply may tell of less than was asked for, so nobody looks further than a reply should go: a client that wants one
    extent gets it without the others being found, and a long range is answered in parts, each asked for by itself.

    Raises:
        OSError: the volume cannot tell.
    """
    chunks: list[bytes] = []
    for context_id, name in contexts.items():
        extents = await volume.block_status(offset, length, name, 1 if only_one else STATUS_EXTENTS)
        fitted = replies.fit_extents(extents, length, only_one=only_one)
        is_last = len(chunks) + 1 == len(contexts)
        chunks.append(replies.status_chunk(cookie, context_id, fitted, is_last=is_last))
    return chunks
