"""What a host tells of itself on its own machine, and how it is asked: nobody waits for anyone."""

import asyncio
import errno
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from services.write_cloning import local_status as local_status_module
from services.write_cloning.keeper import Keeper
from services.write_cloning.local_status import LocalTelling, telling_locally
from services.write_cloning.migration import Migration
from services.write_cloning.own_status import own_status_of
from services.write_cloning.views import view_of
from shared.clock import SystemClock
from shared.messages.codec import decode_reply, encode
from shared.messages.host import HostCommand
from shared.messages.local import LocalStatus
from shared.messages.standing import untold
from shared.messages.status import MigrationStatus, StatusSource, UnrecordedDecision
from shared.migration.condition import JournalCondition
from shared.migration.states import State
from shared.migration.table import Trigger
from shared.one_answer import CLIENTS_MAX, OneAnswer
from tests.support.standing_host import HOST, NAME, PATIENCE_S, StandingHost, standing_host

MORE_THAN_A_SOCKET_HOLDS = b"x" * (8 << 20)


def own_status(house: StandingHost) -> MigrationStatus:
    return own_status_of(house.migration, house.around)


async def test_of_a_journal_that_holds_everything_nothing_is_to_be_told() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        status = own_status(house)
        assert (status.source_of_status, status.state, status.attempt) == (
            StatusSource.HOST,
            State.SOURCE_SELECTED,
            1,
        )
        assert (status.error_flag, status.journal_pending, status.allowed) == (True, False, ())
        assert (status.source, status.target) == ("source", "target")
        assert status.unrecorded is not None
        assert (status.unrecorded.faults, status.unrecorded.decisions, status.unrecorded.flag_clear) == (
            (),
            (),
            False,
        )


async def test_what_waits_for_the_journal_is_told_and_the_flag_is_set_until_it_is_known_to_be_clear() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        house.bus.cut()
        house.target.failing["write"] = errno.EIO
        assert await house.answer(house.write()) == 0
        await house.until(lambda: house.migration.reporter.trouble)
        status = own_status(house)
        assert (status.state, status.error_flag, status.journal_pending) == (State.SETUP, True, True)
        assert status.unrecorded is not None
        assert [(each.side, each.operation) for each in status.unrecorded.faults] == [("target", "write")]
        assert status.faults == status.unrecorded.faults
        assert status.unrecorded.decisions == (
            UnrecordedDecision(decision=house.witness.decision, trigger="target-fault", state=State.SETUP),
        )
        assert status.unrecorded.flag_clear
        assert status.journal_wait is not None
        assert (
            status.journal_wait.what
            == f"1 fault, decision {house.witness.decision} (setup), that the error flag is clear"
        )
        assert status.warnings == (untold(NAME, status.journal_wait),)
        assert status.warnings[0].endswith("What keeps it: There is no connection to the bus.")
        assert house.migration.reporter.waiting == status.journal_wait, "it waits since it began to"
        house.bus.heal()
        await house.settled(State.SETUP)
        status = own_status(house)
        assert (status.error_flag, status.journal_pending) == (False, False)
        assert (status.warnings, status.journal_wait) == ((), None)
        assert status.unrecorded is not None
        assert (status.unrecorded.faults, status.unrecorded.decisions, status.unrecorded.flag_clear) == (
            (),
            (),
            False,
        )
        assert [(each.side, each.operation) for each in status.faults] == [("target", "write")]


async def test_journal_that_does_not_take_the_first_record_is_not_called_sound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with standing_host() as house:
        untaken = replace(house.witness, tail_digest="")
        monkeypatch.setattr(Migration, "witness", property(lambda _migration: untaken))
        assert own_status(house).journal_condition is JournalCondition.SOUND, "nothing keeps it"
        house.migration.reporter.trouble = "The disk is full."
        assert own_status(house).journal_condition is JournalCondition.PENDING
        assert view_of(house.migration, house.around).journal_condition is JournalCondition.PENDING
        house.migration.journal.condition = JournalCondition.ANOTHER
        assert own_status(house).journal_condition is JournalCondition.ANOTHER
        monkeypatch.undo()


async def test_flag_is_set_for_as_long_as_it_is_not_known_whether_its_clear_was_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The witness has given the flag up before it is cleared: what it holds then is not all that it knows."""
    async with standing_host(State.SOURCE_SELECTED) as house:
        spend = Keeper.spend_flag

        async def spend_and_be_cut_off(keeper: Keeper, digest: str) -> None:
            await spend(keeper, digest)
            house.bus.cut()

        monkeypatch.setattr(Keeper, "spend_flag", spend_and_be_cut_off)
        abort = HostCommand(uuid=house.witness.uuid, operation_id="op-abort")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(house.migration.command(Trigger.ABORT, abort))
            await house.until(lambda: not house.bus.is_connected)
            status = own_status(house)
            assert (house.witness.flag_digest, status.error_flag) == ("", True)
            monkeypatch.undo()
            house.bus.heal()
        assert not own_status(house).error_flag


async def test_all_that_a_host_has_is_one_document() -> None:
    async with standing_host() as house:
        telling = LocalTelling(host_name=HOST, run=1, clock=SystemClock())
        before = decode_reply(LocalStatus, telling.as_bytes())
        assert (before.migrations, before.nats_is_away, before.nats_lost_at) == ((), True, None)
        telling.host = house.host
        told = decode_reply(LocalStatus, telling.as_bytes())
        assert [each.name for each in told.migrations] == [NAME]
        assert encode(told.migrations[0].devices) == encode(house.witness.devices)


# ------------------------------------------------------------------ the socket


@asynccontextmanager
async def told_at(path: Path, answer: bytes = b"told") -> AsyncIterator[None]:
    async with telling_locally(path, lambda: answer):
        yield


async def asked(path: Path) -> bytes:
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_unix_connection(path)
        answer = await reader.read()
        writer.close()
    return answer


async def test_socket_is_its_owners_alone_and_goes_with_the_service(short_path: Path) -> None:
    path = short_path / "status.sock"
    async with told_at(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await asked(path) == b"told"
        assert await asked(path) == b"told"
    assert not path.exists()


async def test_socket_of_a_dead_process_is_replaced(short_path: Path) -> None:
    path = short_path / "status.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))
    async with told_at(path):
        assert await asked(path) == b"told"


async def test_socket_that_somebody_listens_on_is_left_to_him(
    short_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = short_path / "status.sock"
    async with told_at(path, b"the first"):
        with caplog.at_level(logging.WARNING):
            async with told_at(path, b"the second"):
                assert await asked(path) == b"the first"
        assert "can be asked by NATS only" in caplog.text
        assert await asked(path) == b"the first"


async def test_who_does_not_read_holds_up_nobody_and_is_hung_up_on(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, answer = short_path / "status.sock", MORE_THAN_A_SOCKET_HOLDS
    monkeypatch.setattr(local_status_module, "OneAnswer", lambda tell: OneAnswer(tell, patience_s=0.2))
    async with told_at(path, answer):
        silent = [await asyncio.open_unix_connection(path, limit=1) for _ in range(CLIENTS_MAX - 1)]
        assert await asked(path) == answer
        one_more = await asyncio.open_unix_connection(path, limit=1)
        assert await asked(path) == b"", "there are as many as may wait"
        for reader, writer in (*silent, one_more):
            async with asyncio.timeout(PATIENCE_S):
                assert len(await reader.read()) < len(answer)
            writer.close()
        assert await asked(path) == answer, "room again"
