"""What a host makes durable around its admission: that it asks, before it does; that it was admitted, before it opens."""

import asyncio
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
from shared.migration.refusals import Code, Refusal
from tests.support.standing_host import HOST, StandingHost

LIMITS = Limits(io_timeout_s=1, target_flush_interval_s=1, region_size_bytes=1 << 20)


@asynccontextmanager
async def asking(
    requests: list[AdmissionRequest], durable: list[Runs], refusals: list[Refusal]
) -> AsyncIterator[StandingHost]:
    """A host whose requests are collected, with what its directory held when each came; the first ones are refused."""
    async with asyncio.TaskGroup() as tasks:
        house = StandingHost(tasks, LIMITS)

        async def admit(_host: str, request: AdmissionRequest) -> AdmissionReply:
            requests.append(request)
            durable.append(await Openings(house.storage).runs())
            if refusals:
                raise refusals.pop()
            return AdmissionReply()

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
        tried = (Try(run=1, life=house.around.life),)
        with pytest.raises(Refusal, match="not yet"):
            await house.host.admit()
        await house.host.admit()
        assert durable == [Runs(tried=tried)] * 2
        assert [(each.admitted_run, each.tried) for each in requests] == [(None, tried)] * 2
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
        with pytest.raises(Refusal, match=r"could not be noted in host\.state_dir") as refusal:
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
        with pytest.raises(Refusal, match=r"host\.state_dir: it is damaged"):
            await house.host.admit()
        assert requests == []
