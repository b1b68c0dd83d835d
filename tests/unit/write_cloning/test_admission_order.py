"""What a host makes durable around its admission: that it asks, before it does; that it was admitted, before it opens."""

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.write_cloning.endpoints import Waiting
from services.write_cloning.faults import FAULTS_PER_SIDE_MAX
from services.write_cloning.openings import Openings, Runs
from services.write_cloning.service import _admitted
from services.write_cloning.surroundings import Limits
from services.write_cloning.witness import Witness
from shared.bus.interface import Endpoint, ServiceDescription
from shared.bus.memory import MemoryBus
from shared.config.load import ConfigError
from shared.messages.admission import AdmissionReply, AdmissionRequest, Closed, Try, admission_subject
from shared.messages.codec import MESSAGE_BYTES_MAX, encode
from shared.messages.host import TryAgainRequest
from shared.messages.recording import FaultReport
from shared.migration.devices import Side
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from tests.support.records import DEVICES
from tests.support.standing_host import HOST, StandingHost

LIMITS = Limits(io_timeout_s=1, target_flush_interval_s=1, region_size_bytes=1 << 20)


@asynccontextmanager
async def asking(
    requests: list[AdmissionRequest],
    durable: list[Runs],
    refusals: list[Refusal],
    reply: AdmissionReply = AdmissionReply(),  # noqa: B008 - it is frozen
) -> AsyncIterator[StandingHost]:
    """A host whose requests are collected, with what its directory held when each came; the first ones are refused."""
    async with asyncio.TaskGroup() as tasks:
        house = StandingHost(tasks, LIMITS)

        async def admit(_host: str, request: AdmissionRequest) -> AdmissionReply:
            requests.append(request)
            durable.append(await Openings(house.storage).runs())
            if refusals:
                raise refusals.pop()
            return reply

        endpoint = Endpoint(
            name="admit",
            subject=admission_subject("*"),
            request=AdmissionRequest,
            handler=admit,
            request_bytes_max=MESSAGE_BYTES_MAX,
        )
        description = ServiceDescription(name="s", description="of a test")
        async with MemoryBus(house.broker, "startup").serve(description, [endpoint]):
            yield house


async def test_run_is_known_before_it_asks_and_counts_as_admitted_once_it_is() -> None:
    requests: list[AdmissionRequest] = []
    durable: list[Runs] = []
    async with asking(requests, durable, [Refusal(Code.BUSY, "not yet")]) as house:
        with pytest.raises(Refusal, match="not yet"):
            await house.host.admit()
        await house.host.admit()
        assert requests[0].question
        tried = (Try(run=1, life=requests[0].question),)
        assert durable == [Runs(tried=tried)] * 2
        assert [(each.admitted_run, each.tried, each.question) for each in requests] == [
            (None, tried, requests[0].question)
        ] * 2
        assert await Openings(house.storage).runs() == Runs(admitted=1)


@pytest.mark.parametrize(("fails_at", "asked"), [(0, 0), (1, 1)])
async def test_nothing_is_opened_where_that_cannot_be_written(fails_at: int, asked: int) -> None:
    requests: list[AdmissionRequest] = []
    async with asking(requests, [], []) as house:
        puts = 0

        async def fail() -> None:
            nonlocal puts
            house.storage.puts_to_fail = int(puts == fails_at)
            puts += 1
            house.storage.before_put = fail

        house.storage.before_put = fail
        with pytest.raises(Refusal, match=r"host\.state_dir keeps could not be read or written") as refusal:
            await house.host.admit()
        assert refusal.value.code is Code.BUSY, "asked again until it can be"
        assert len(requests) == asked
        await house.host.admit()
        assert (await Openings(house.storage).runs()).admitted == 1


async def test_state_directory_that_is_refused_is_no_case_for_another_start() -> None:
    """Cause: the exit status was that of a failure, so a supervisor started it again once a second, for ever."""
    refusals = [Refusal(Code.STALE, "It is an old copy."), Refusal(Code.BUSY, "not yet")]
    async with asking([], [], refusals) as house:
        with pytest.raises(ConfigError, match=r"^host\.state_dir: It is an old copy\.$"):
            await _admitted(house.host, Waiting(HOST, 1), asyncio.Event())


async def test_nothing_is_asked_where_it_cannot_be_read_what_was_opened_last() -> None:
    requests: list[AdmissionRequest] = []
    async with asking(requests, [], []) as house:
        house.storage.content["openings"] = b"{"
        with pytest.raises(Refusal, match=r"host\.state_dir keeps .*: it is damaged"):
            await house.host.admit()
        assert requests == []


async def test_question_that_nobody_has_heard_is_asked_under_another_name() -> None:
    """A copy of the state directory that was taken while the host waited knew the run that was admitted later for a mere try."""
    requests: list[AdmissionRequest] = []
    durable: list[Runs] = []
    async with asking(requests, durable, [Refusal(Code.JOURNAL_AWAY, "nothing was judged")]) as house:
        with pytest.raises(Refusal, match="nothing was judged"):
            await house.host.admit()
        await house.host.admit()
        first, second = (each.question for each in requests)
        assert first != second
        assert durable == [Runs(tried=(Try(run=1, life=each),)) for each in (first, second)]


@pytest.mark.parametrize("broken", ["get", "names"])
async def test_directory_that_cannot_be_read_is_asked_for_again(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the directory ended the host, and every volume that it served, when it judged a single one anew."""
    async with asking([], [], []) as house:
        with monkeypatch.context() as patch:

            async def fail(*_arguments: object) -> None:
                raise OSError(errno.EIO, "Input/output error")

            patch.setattr(house.storage, broken, fail)
            with pytest.raises(Refusal, match=r"host\.state_dir keeps .*: Input/output error") as refusal:
                await house.host.try_again("vol9", TryAgainRequest())
            assert refusal.value.code is Code.BUSY
        await house.host.try_again("vol9", TryAgainRequest())


async def test_what_cannot_be_removed_ends_no_host() -> None:
    async with asking([], [], [], AdmissionReply(removed=("vol9",))) as house:

        async def fail() -> None:
            raise OSError(errno.EROFS, "Read-only file system")

        house.storage.before_remove = fail
        await house.host.admit()
        assert (await Openings(house.storage).runs()).admitted == 1


async def test_what_is_too_large_is_asked_for_again() -> None:
    """It ended the host, at every start."""
    requests: list[AdmissionRequest] = []
    async with asking(requests, [], [Refusal(Code.TOO_LARGE, "at most 1048576 are accepted")]) as house:
        assert await _admitted(house.host, Waiting(HOST, 1), asyncio.Event())
        assert len(requests) == 2


def failing(name: str) -> Witness:
    """Of a volume both of whose devices fail."""
    faults = tuple(
        FaultReport(
            operation_id=f"u-{name}:fault:12:0123456789abcdef:{number}", side=side, state=State.SYNCING, attempt=1,
            operation="read", cause="EIO", errno=5, offset=number << 20, length=1 << 20,
            detected_at="2026-01-31T12:00:00.000000Z",
        )
        for side in Side
        for number in range(FAULTS_PER_SIDE_MAX)
    )  # fmt: skip
    return Witness(
        migration=name, uuid=f"u-{name}", host=HOST, run=1, state=State.SYNCING, attempt=1, decision=2, operation_id="o",
        trigger="sync", faults=faults, devices=DEVICES,
    )  # fmt: skip


async def test_question_that_no_message_could_carry_is_asked_in_parts() -> None:
    """The witnesses of a host with some hundred volumes on a failing array: none of its volumes opened any more."""
    requests: list[AdmissionRequest] = []
    durable: list[Runs] = []
    closed = Closed(migration="vol000", uuid=None, code="not-admitted", message="no")
    async with asking(requests, durable, [], AdmissionReply(closed=(closed,))) as house:
        names = [f"vol{number:03}" for number in range(120)]
        for name in names:
            await house.around.witnesses.write(failing(name))
        house.storage.content["vol120.witness"] = b"torn"
        await house.host.admit()
        assert max(len(encode(each)) for each in requests) <= MESSAGE_BYTES_MAX
        assert [each.migration for part in requests for each in part.witnesses] == names
        assert [len(part.unreadable) for part in requests] == [*[0] * (len(requests) - 1), 1]
        for name in (*names, "a", "vol050x", "zzz"):  # also what the journal alone knows
            assert sum(part.covers(name) for part in requests) == 1
        assert [part.asked_before for part in requests] == [False, *[True] * (len(requests) - 1)]
        assert {part.question for part in requests} == {requests[0].question}
        assert {each.admitted for each in durable} == {None}, "no part is noted for the whole"
        assert (await Openings(house.storage).runs()).admitted == 1


async def test_question_about_one_volume_carries_its_witness_alone() -> None:
    requests: list[AdmissionRequest] = []
    async with asking(requests, [], []) as house:
        for name in ("vol1", "vol2"):
            await house.around.witnesses.write(failing(name))
        await house.host.try_again("vol2", TryAgainRequest())
        (request,) = requests
        assert [each.migration for each in request.witnesses] == ["vol2"]
