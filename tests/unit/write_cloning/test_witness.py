"""A witness is believed if it is whole, whichever version wrote it; a flipped bit anywhere is found."""

import errno
import hashlib
from dataclasses import replace

import orjson
import pytest

from services.write_cloning.witness import Witness, Witnesses
from shared.migration.states import State
from tests.support.records import DEVICES, HOST, NAME, UUID
from tests.support.standing_host import MemoryStorage

WITNESS = Witness(
    migration=NAME, uuid=UUID, host=HOST, run=3, state=State.SYNCING, attempt=2, decision=5, operation_id="o",
    trigger="sync", flag_digest="f", devices=DEVICES, region_map="3-2",
)  # fmt: skip
FILE = f"{NAME}.witness"


async def _stored() -> MemoryStorage:
    storage = MemoryStorage()
    await Witnesses(storage).write(WITNESS)
    return storage


async def test_witness_comes_back() -> None:
    assert await Witnesses(await _stored()).read_all() == ([WITNESS], [])


async def test_witness_of_an_older_version_lacks_newer_fields_and_is_believed() -> None:
    """Its seal was compared with one over all fields of today, so that every update lost every witness."""
    storage = await _stored()
    document = orjson.loads(storage.content[FILE])
    for added_later in ("region_map", "full_because", "needs_verify", "verified_at"):
        del document["witness"][added_later]
    document["sha256"] = hashlib.sha256(orjson.dumps(document["witness"])).hexdigest()
    storage.content[FILE] = orjson.dumps(document)
    ((witness,), unreadable) = await Witnesses(storage).read_all()
    assert unreadable == []
    assert (witness.attempt, witness.flag_digest, witness.region_map) == (2, "f", "")


async def test_any_flipped_bit_is_found() -> None:
    storage = await _stored()
    content = storage.content[FILE]
    for at in range(len(content)):
        damaged = bytearray(content)
        damaged[at] ^= 1 << at % 7
        storage.content[FILE] = bytes(damaged)
        readable, unreadable = await Witnesses(storage).read_all()
        assert not readable, f"byte {at}: {readable}"
        assert [each.migration for each in unreadable] == [NAME]


class BadSector(MemoryStorage):
    """A storage of which one file cannot be read."""

    async def get(self, name: str) -> bytes | None:
        if name == FILE:
            raise OSError(errno.EIO, "Input/output error")
        return await super().get(name)


async def test_witness_that_cannot_be_read_is_no_business_of_the_others() -> None:
    """The whole host did not start."""
    storage = BadSector()
    other = replace(WITNESS, migration="vol2")
    for witness in (WITNESS, other):
        await Witnesses(storage).write(witness)
    readable, (unreadable,) = await Witnesses(storage).read_all()
    assert readable == [other]
    assert (unreadable.migration, unreadable.reason) == (NAME, "it cannot be read (Input/output error)")


async def test_kept_copy_under_no_name_of_a_migration_is_passed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`cp vol1.witness vol1.old.witness`: startup refused the whole admission for such a name, at every start."""
    storage = await _stored()
    storage.content[f"{NAME}.old.witness"] = storage.content[FILE]
    witnesses = Witnesses(storage)
    assert await witnesses.read_all() == ([WITNESS], [])
    assert await witnesses.read_all() == ([WITNESS], [])
    (message,) = caplog.messages  # told once, however often a host that is not admitted yet reads them
    assert f"{NAME}.old.witness" in message
    assert "lower-case letters, digits and hyphens" in message
