"""What a host makes durable around its admission: that it asks, before it does; that it was admitted, before it opens."""

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.write_cloning.endpoints import Waiting
from services.write_cloning.openings import Openings, Runs
from services.write_cloning.service import _admitted
from services.write_cloning.surroundings import Limits
from shared.bus.interface import Endpoint, ServiceDescription
from shared.bus.memory import MemoryBus
from shared.config.load import ConfigError
from shared.messages.admission import AdmissionReply, AdmissionRequest, Try, admission_subject
from shared.messages.host import TryAgainRequest
from shared.migration.refusals import Code, Refusal
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
            name="admit", subject=admission_subject("*"), request=AdmissionRequest, handler=admit
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
