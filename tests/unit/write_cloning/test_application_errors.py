"""A device that is alone in use and fails: its errors are the application's, no fault, and somebody has to hear of them.

Cause: what the application was answered was nobody's business but the client's. Failing, a volume whose every request is an
error is told as a healthy one by `query`, `list`, `doctor`, the metrics and the page.
"""

import errno
import logging

import pytest

from services.write_cloning.application_errors import (
    LOG_EVERY_S,
    RECENT_S,
    ApplicationErrors,
    BrokenDevice,
)
from services.write_cloning.devices.interface import Unfenced
from services.write_cloning.views import view_of
from services.write_cloning.volume.failures import Failure
from services.write_cloning.volume.requests import Kind, Request
from shared.messages.control import PlainRequest, control_subject
from shared.messages.host import HostStatusReply
from shared.messages.status import ApplicationErrorsView, MigrationStatus
from shared.migration.devices import Side
from shared.migration.states import State
from shared.nbd.constants import ALLOCATION_CONTEXT
from tests.support.standing_host import NAME, PATIENCE_S, PromptDevice, StandingHost, standing_host
from tests.support.stepping import SIZE, Bench, finish, turn

BROKEN = BrokenDevice(side=Side.SOURCE, name="nbd://storage/vol1")


class Clock:
    """Tells people and the tally what time it is, as the test says."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def now_rfc3339(self) -> str:
        return f"T+{self.seconds:g}"

    def now_s(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def errors(clock: Clock) -> ApplicationErrors:
    return ApplicationErrors("vol1", "h3", clock, clock.now_s)


def failure(offset: int = 0, *, side: Side = Side.SOURCE, operation: str = "read") -> Failure:
    return Failure(side=side, operation=operation, cause="EIO", errno=errno.EIO, offset=offset, length=4096)


# ------------------------------------------------------------------ what is kept, and for how long it is told


def test_first_and_last_are_kept_and_all_are_counted(errors: ApplicationErrors, clock: Clock) -> None:
    assert errors.view() is None
    for number in range(5):
        errors.note(failure(number * 4096))
        clock.seconds += 1
    errors.note(failure(7, side=Side.TARGET, operation="write"))
    view = errors.view()
    assert view is not None
    assert (view.of_source, view.of_target) == (5, 1)
    assert (view.first.at, view.first.offset, view.first.side) == ("T+100", 0, Side.SOURCE)
    assert (view.last.at, view.last.operation, view.last.side) == ("T+105", "write", Side.TARGET)
    assert view.last.errno == errno.EIO


def test_trouble_is_told_for_an_hour_after_the_last_error(errors: ApplicationErrors, clock: Clock) -> None:
    assert not errors.trouble(None)
    errors.note(failure(33554432))
    told = "vol1: the application gets errors: 1 request failed, at T+100: source read at 33554432: EIO."
    assert errors.trouble(None) == told
    clock.seconds += RECENT_S - 1
    assert errors.trouble(None) == told
    errors.note(failure(33554432))
    clock.seconds += RECENT_S - 1
    assert "2 requests failed since T+100, the last at T+3699" in errors.trouble(None)
    clock.seconds += 1
    assert not errors.trouble(None)
    assert errors.view() is not None, "what was counted stays"


def test_trouble_of_a_broken_device_stays(errors: ApplicationErrors, clock: Clock) -> None:
    """Also where nobody has asked it for anything since."""
    told = errors.trouble(BROKEN)
    assert told == (
        "vol1: the application will get errors: the connection to nbd://storage/vol1, its source, is broken, and is never made "
        "again by itself: see to its server, then restart the write cloning service of host h3."
    )
    errors.note(failure())
    clock.seconds += 10 * RECENT_S
    assert "1 request failed" in errors.trouble(BROKEN)


def test_one_line_a_minute_is_logged_however_many_requests_fail(
    errors: ApplicationErrors, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(1000):
        errors.note(failure(4096))
    assert [record.getMessage() for record in caplog.records] == [
        "the application gets errors: source read at 4096: EIO"
    ]
    assert caplog.records[0].migration == "vol1"  # type: ignore[attr-defined]
    assert caplog.records[0].levelno == logging.ERROR
    clock.seconds += LOG_EVERY_S
    errors.note(failure(8192))
    assert caplog.records[1].getMessage() == (
        "the application gets errors: 1000 since the last line like this; source read at 8192: EIO"
    )
    errors.note(failure(8192))
    assert len(caplog.records) == 2


# ------------------------------------------------------------------ whose errors the volume calls them


def told_by(bench: Bench) -> list[Failure]:
    told: list[Failure] = []
    bench.volume.told_error = told.append
    return told


@pytest.mark.parametrize(
    ("state", "side"),
    [(State.SETUP, Side.SOURCE), (State.SYNCING, Side.SOURCE), (State.TARGET_SELECTED, Side.TARGET)],
)
async def test_error_is_that_of_the_side_that_alone_could_answer(state: State, side: Side) -> None:
    bench = Bench(state)
    told = told_by(bench)
    if state is State.TARGET_SELECTED:
        bench.move_authority()
    request = bench.read(offset=8192)
    await finish(bench.source if side is Side.SOURCE else bench.target, "read", errno.EIO)
    assert bench.answered == [request]
    bench.volume.note_error(request)
    assert told == [
        Failure(side=side, operation="read", cause="EIO", errno=errno.EIO, offset=8192, length=4096)
    ]


async def test_read_that_the_other_side_answers_is_no_error() -> None:
    bench = Bench(State.SOURCE_SELECTED)
    request = bench.read()
    await finish(bench.source, "read", errno.EIO)
    await finish(bench.target, "read")
    await finish(bench.target, "flush")
    assert (bench.answered, request.error) == ([request], 0)


async def test_what_the_protocol_demands_is_no_device_s_error() -> None:
    bench = Bench(State.SETUP)
    told = told_by(bench)
    bench.source.can_zero_fast = False
    fast = Request(Kind.ZERO, 0, 4096, bench.answered.append)
    fast.fast = True
    bench.volume.submit(fast)
    await bench.volume.close()
    late = bench.read()
    await turn()
    assert [(each, each.error) for each in bench.answered] == [
        (fast, errno.ENOTSUP),
        (late, errno.ESHUTDOWN),
    ]
    for request in bench.answered:
        bench.volume.note_error(request)
    assert told == []


async def test_server_that_shuts_down_is_a_device_that_fails() -> None:
    """Its ESHUTDOWN is not ours."""
    bench = Bench(State.SETUP)
    told = told_by(bench)
    request = bench.read()
    await finish(bench.source, "read", errno.ESHUTDOWN)
    bench.volume.note_error(request)
    assert [each.cause for each in told] == ["ESHUTDOWN"]


async def test_question_for_holes_that_the_device_cannot_answer_is_one_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(State.SETUP)
    told = told_by(bench)

    async def fail(*_: object) -> None:
        raise OSError(errno.EIO, "the file has shrunk")

    monkeypatch.setattr(bench.source, "extents", fail)
    with pytest.raises(OSError, match="shrunk"):
        await bench.volume.block_status(4096, SIZE - 4096, ALLOCATION_CONTEXT, 4)
    assert told == [
        Failure(
            side=Side.SOURCE,
            operation="block-status",
            cause="EIO",
            errno=errno.EIO,
            offset=4096,
            length=SIZE - 4096,
        )
    ]


# ------------------------------------------------------------------ what the host says


class Remote(PromptDevice, Unfenced):
    """A remote device whose connection breaks when the test says so."""

    def __init__(self, of: PromptDevice) -> None:
        super().__init__(of.identity.name, bytes(of.content))
        self.is_severed = False
        self.belongs_to = ""

    @property
    def is_broken(self) -> bool:
        return self.is_severed

    def belong_to(self, migration: str) -> None:
        self.belongs_to = migration

    def vouch_gone(self) -> None:
        """Nothing of it can land late."""


async def fail_a_read(house: StandingHost, side: Side) -> None:
    device = house.source if side is Side.SOURCE else house.target
    device.failing["read"] = errno.EIO
    request = house.read(offset=4096)
    assert await house.answer(request) == errno.EIO
    house.exports.volumes[NAME].note_error(request)


async def queried(house: StandingHost) -> MigrationStatus:
    return await house.operator.request(
        control_subject("query", NAME), PlainRequest(), MigrationStatus, timeout_s=PATIENCE_S
    )


@pytest.mark.parametrize(("state", "side"), [(State.SETUP, Side.SOURCE), (State.COMMITTED, Side.TARGET)])
async def test_side_that_is_alone_and_fails_is_told_everywhere(state: State, side: Side) -> None:
    async with standing_host(state) as house:
        assert (await queried(house)).warnings == ()
        await fail_a_read(house, side)
        view = view_of(house.migration, house.around)
        expected = ApplicationErrorsView(
            of_source=int(side is Side.SOURCE),
            of_target=int(side is Side.TARGET),
            first=view.application_errors.last if view.application_errors else None,  # type: ignore[arg-type]
            last=view.application_errors.last if view.application_errors else None,  # type: ignore[arg-type]
        )
        assert view.application_errors == expected
        assert f"{side} read at 4096: EIO" in view.application_trouble
        assert view.warnings == (view.application_trouble,)
        status = await queried(house)
        assert status.application_errors == expected
        assert status.application_trouble == view.application_trouble
        assert status.warnings == (view.application_trouble,)
        assert status.faults == (), "no fault of an attempt: there is none"
        (own,) = house.host.own_statuses()
        assert (own.application_errors, own.warnings) == (expected, status.warnings)
        reply: HostStatusReply = house.host.status()
        assert reply.warnings == status.warnings


async def test_remote_source_that_is_broken_is_told_before_anybody_asks_for_anything() -> None:
    async with standing_host() as house:
        apparatus = house.migration.apparatus
        remote = Remote(house.source)
        house.drawer.source = remote
        apparatus.source = remote
        assert not apparatus.application_trouble
        remote.is_severed = True
        assert "the connection to source, its source, is broken" in apparatus.application_trouble
        assert "select-target" not in apparatus.application_trouble
        assert (await queried(house)).warnings == (apparatus.application_trouble,)


async def test_broken_source_is_not_told_for_the_applications_while_another_side_stands_in() -> None:
    async with standing_host(State.TARGET_SELECTED) as house:
        apparatus = house.migration.apparatus
        remote = Remote(house.source)
        remote.is_severed = True
        kept, apparatus.source = apparatus.source, remote
        assert not apparatus.application_trouble, "the authority moves with the next write"
        apparatus.source = kept


async def test_source_that_breaks_while_the_target_holds_the_same_has_another_way_out() -> None:
    async with standing_host(State.SOURCE_SELECTED) as house:
        apparatus = house.migration.apparatus
        remote = Remote(house.source)
        remote.is_severed = True
        kept, apparatus.source = apparatus.source, remote
        assert f"`cutover select-target {NAME}` goes on with the target" in apparatus.application_trouble
        apparatus.volume.failover.drop(Side.TARGET, withhold=False)
        assert "select-target" not in apparatus.application_trouble
        apparatus.source = kept


async def test_remote_devices_learn_whose_they_are() -> None:
    async with standing_host() as house:
        remote = Remote(house.target)
        house.drawer.target = remote
        apparatus = house.migration.apparatus
        await apparatus.release_target()

        async def opened(*_: object, **__: object) -> Remote:
            return remote

        house.drawer.open_recorded = opened  # type: ignore[method-assign]
        await apparatus.open_target()
        assert remote.belongs_to == NAME
