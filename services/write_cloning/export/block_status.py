"""Answers to block status requests. The slow path: a task for each."""

from collections.abc import Mapping

from services.write_cloning.export.exported import ExportedVolume
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

    Raises:
        OSError: the volume cannot tell.
    """
    chunks: list[bytes] = []
    for context_id, name in contexts.items():
        extents = await volume.block_status(offset, length, name)
        fitted = replies.fit_extents(extents, length, only_one=only_one)
        is_last = len(chunks) + 1 == len(contexts)
        chunks.append(replies.status_chunk(cookie, context_id, fitted, is_last=is_last))
    return chunks
