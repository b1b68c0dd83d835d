"""What startup answers becomes names of files: one that is no name of a migration is refused before anything is touched."""

import asyncio

import pytest

from services.write_cloning.surroundings import Limits
from shared.bus.interface import Endpoint, ServiceDescription
from shared.bus.memory import MemoryBus
from shared.messages.admission import AdmissionReply, AdmissionRequest, Closed, admission_subject
from shared.migration.refusals import Code, Refusal
from tests.support.standing_host import StandingHost

LIMITS = Limits(io_timeout_s=1, target_flush_interval_s=1, region_size_bytes=1 << 20)
PATH = "../../etc/x"


@pytest.mark.parametrize(
    "reply",
    [
        AdmissionReply(removed=(PATH,)),
        AdmissionReply(closed=(Closed(migration=PATH, uuid=None, code="internal", message="no"),)),
        AdmissionReply(removed=("vol1", "a\x1b[2J")),
    ],
)
async def test_answer_with_a_name_that_is_none_changes_nothing(reply: AdmissionReply) -> None:
    async def admit(_host: str, _request: AdmissionRequest) -> AdmissionReply:
        return reply

    endpoint = Endpoint(name="admit", subject=admission_subject("*"), request=AdmissionRequest, handler=admit)
    async with asyncio.TaskGroup() as tasks:
        house = StandingHost(tasks, LIMITS)
        await house.storage.put("vol1.witness", b"kept")
        startup = MemoryBus(house.broker, "startup")
        async with startup.serve(ServiceDescription(name="s", description="of a test"), [endpoint]):
            with pytest.raises(Refusal) as caught:
                await house.host.admit()
        assert caught.value.code is Code.INTERNAL
        assert "which is no name of a migration" in caught.value.message
        assert await house.storage.get("vol1.witness") == b"kept"
        assert not house.host.status(None).closed
