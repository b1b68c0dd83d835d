"""What only the real connection can show: servers that are away, restart, or do not sync; tools that look at services."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import nats.errors as nats_errors
import nats.js.errors
import orjson
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import StreamConfig

from services.console.doctor.looking_at_bus import look_at_bus
from shared.bus.bootstrap import bootstrap, require_journal
from shared.bus.chain import ChainJournal
from shared.bus.connection import Bus, connect, connected
from shared.bus.durability import ServerDurability
from shared.bus.endpoints import NatsEndpoints
from shared.bus.interface import Endpoint, ServiceDescription, Unanswered
from shared.bus.jetstream import JetStreamStream
from shared.bus.server import ServerFailed, nats_server, server_config, start_server
from shared.clock import SystemClock
from shared.config.model import NatsConfig
from shared.messages.control import PlainRequest
from shared.migration.ledger import Tail
from shared.migration.records import Subjects
from shared.migration.refusals import Code, Refusal
from tests.support.buses import NatsWiring
from tests.support.records import NAME, UUID, flag_set, state_record

CLOCK = SystemClock()
SERVICE = ServiceDescription(name="svc", description="of a test", metadata={"host": "h1"})


async def _echo(about: str, _request: PlainRequest) -> PlainRequest:
    if about == "bad":
        raise Refusal(Code.NOT_ALLOWED, "Not in this state.\nSecond line.", ("sync",))
    return PlainRequest(operation_id=about)


ECHO = Endpoint(name="echo", subject="svc.echo.*", request=PlainRequest, handler=_echo)


@contextlib.asynccontextmanager
async def stock_client(wiring: NatsWiring) -> AsyncIterator[Client]:
    client = Client()
    await client.connect(wiring.url)
    try:
        yield client
    finally:
        await client.close()


# ------------------------------------------------------------------ away, and back


async def test_a_server_that_is_away_is_said_within_five_seconds() -> None:
    began = time.monotonic()
    with pytest.raises(Refusal) as caught:
        await connect("nats://user:secret@127.0.0.1:9", name="t", clock=CLOCK)
    assert time.monotonic() - began < 5
    assert caught.value.code is Code.JOURNAL_AWAY
    assert "nats://127.0.0.1:9" in caught.value.message
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("url", ["nats://", "nats://127.0.0.1:notaport"])
async def test_a_malformed_url_is_refused(url: str) -> None:
    with pytest.raises(Refusal) as caught:
        await connect(url, name="t", clock=CLOCK, timeout_s=1)
    assert caught.value.code is Code.JOURNAL_AWAY


async def test_who_waits_learns_at_once_that_the_server_is_gone(tmp_path: Path) -> None:
    began, never = asyncio.Event(), asyncio.Event()

    async def hang(_about: str, _request: object) -> object:
        began.set()
        await never.wait()
        return PlainRequest()

    endpoint = Endpoint(name="hang", subject="svc.hang", request=PlainRequest, handler=hang)
    server = await start_server(tmp_path)
    async with (
        connected(server.url, name="t", clock=CLOCK) as bus,
        NatsEndpoints(bus).serve(SERVICE, [endpoint]),
    ):
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(_refusal(bus, "svc.hang", timeout_s=60))
            await began.wait()
            await server.stop()
            async with asyncio.timeout(5):
                refusal = await asking
        assert isinstance(refusal, Unanswered)
        with pytest.raises(Refusal) as caught:
            await bus.publish("x", PlainRequest())
        assert caught.value.code is Code.JOURNAL_AWAY
        assert (await _refusal(bus, "svc.hang", timeout_s=60)).code is Code.JOURNAL_AWAY
        never.set()


async def _refusal(bus: Bus, subject: str, *, timeout_s: float) -> Refusal:
    try:
        await bus.request(subject, PlainRequest(), PlainRequest, timeout_s=timeout_s)
    except Refusal as refusal:
        return refusal
    raise AssertionError("not refused")


async def test_everything_works_again_after_a_restart_of_the_server(tmp_path: Path) -> None:
    server = await start_server(tmp_path)
    port = int(server.url.rpartition(":")[2])
    async with connected(server.url, name="t", clock=CLOCK) as bus:
        await bootstrap(bus)
        back = asyncio.Event()
        bus.on_reconnect(back.set)
        journal = ChainJournal(JetStreamStream(bus))
        async with NatsEndpoints(bus).serve(SERVICE, [ECHO]):
            first = await journal.append(state_record(), Tail())
            await server.stop()
            with pytest.raises(Refusal) as caught:
                await journal.read(NAME)
            assert caught.value.code is Code.JOURNAL_AWAY
            async with nats_server(tmp_path, port=port), asyncio.timeout(10):
                await back.wait()
                ledger = await journal.read(NAME)
                assert ledger.entries == (first,)
                await journal.append(flag_set(), ledger.tail)
                answer = await bus.request("svc.echo.v1", PlainRequest(), PlainRequest, timeout_s=2)
                assert answer.operation_id == "v1"


async def test_closing_is_quick_with_a_listener_that_consumes_nothing(nats: NatsWiring) -> None:
    bus = await connect(nats.url, name="t", clock=CLOCK)
    async with bus.listen("x"):
        for _ in range(10):
            await bus.publish("x", PlainRequest())
        async with asyncio.timeout(3):
            await bus.close()


async def test_a_cancellation_while_asking_is_heeded(nats: NatsWiring) -> None:
    """A task ends cancelled at whichever of its first steps it is cancelled."""
    async with connected(nats.url, name="t", clock=CLOCK) as bus, asyncio.timeout(10):
        for steps in range(8):
            async with asyncio.TaskGroup() as tasks:
                asking = tasks.create_task(_listen_for_ever(bus))
                for _ in range(steps):
                    await asyncio.sleep(0)
                asking.cancel()
            assert asking.cancelled()


async def _listen_for_ever(bus: Bus) -> None:
    async with bus.listen("x") as heard:
        async for _told in heard:
            pass


# ------------------------------------------------------------------ the stock tools' view


async def test_stock_tools_find_describe_and_count_a_service(nats: NatsWiring) -> None:
    async with nats.connect("a") as a, a.endpoints.serve(SERVICE, [ECHO]), stock_client(nats) as client:
        for about in ("v1", "v2", "bad"):
            await client.request(f"svc.echo.{about}", b"", timeout=2)
        ping = orjson.loads((await client.request("$SRV.PING", b"", timeout=2)).data)
        assert (ping["type"], ping["name"]) == ("io.nats.micro.v1.ping_response", "svc")
        info = orjson.loads((await client.request("$SRV.INFO.svc", b"", timeout=2)).data)
        assert info["type"] == "io.nats.micro.v1.info_response"
        assert info["metadata"] == {"host": "h1"}
        assert [(each["name"], each["subject"]) for each in info["endpoints"]] == [("echo", "svc.echo.*")]
        stats = orjson.loads((await client.request(f"$SRV.STATS.svc.{ping['id']}", b"", timeout=2)).data)
        assert stats["type"] == "io.nats.micro.v1.stats_response"
        counted = stats["endpoints"][0]
        assert (counted["num_requests"], counted["num_errors"]) == (3, 1)
        assert counted["last_error"].startswith("not-allowed: Not in this state")


async def test_an_error_reply_is_one_to_stock_tools(nats: NatsWiring) -> None:
    async with nats.connect("a") as a, a.endpoints.serve(SERVICE, [ECHO]), stock_client(nats) as client:
        message = await client.request("svc.echo.bad", b"", timeout=2)
    assert message.headers is not None
    assert message.headers["Nats-Service-Error-Code"] == "not-allowed"
    assert message.headers["Nats-Service-Error"] == "Not in this state. Second line."
    assert orjson.loads(message.data) == {
        "error": {"code": "not-allowed", "message": "Not in this state.\nSecond line.", "allowed": ["sync"]}
    }


async def test_malformed_json_by_hand_is_answered(nats: NatsWiring) -> None:
    async with nats.connect("a") as a, a.endpoints.serve(SERVICE, [ECHO]), stock_client(nats) as client:
        for payload, code in (
            (b"{", "bad-request"),
            (b" " * 70_000, "too-large"),
            (b'{"x":1}', "bad-request"),
        ):
            message = await client.request("svc.echo.v1", payload, timeout=2)
            assert orjson.loads(message.data)["error"]["code"] == code


@pytest.mark.parametrize("reply", ["", "cutover.journal.v1.state", "$SRV.PING"])
async def test_a_message_without_an_inbox_for_the_answer_is_not_heeded(
    nats: NatsWiring, reply: str, caplog: pytest.LogCaptureFixture
) -> None:
    handled: list[str] = []

    async def handle(about: str, _request: PlainRequest) -> PlainRequest:
        handled.append(about)
        return PlainRequest(operation_id=about)

    noting = Endpoint(name="echo", subject="svc.echo.*", request=PlainRequest, handler=handle)
    async with nats.connect("a") as a, a.endpoints.serve(SERVICE, [noting]), stock_client(nats) as client:
        await client.publish("svc.echo.v1", b"", reply=reply)
        assert (await client.request("svc.echo.v2", b"", timeout=2)).data == b'{"operation_id":"v2"}'
    assert handled == ["v2"]
    assert "no inbox" in caplog.text


async def test_records_and_events_are_cloudevents(nats: NatsWiring) -> None:
    async with nats.connect("a") as a, stock_client(nats) as client:
        subscription = await client.subscribe("cutover.>")
        for _ in range(2):  # the first may overtake the subscription, see `Bus.settle`
            await client.flush()
        await a.journal.append(state_record(), Tail())
        await a.requests.publish("cutover.progress.vol1", PlainRequest())
        record, event = await subscription.next_msg(2), await subscription.next_msg(2)
    assert record.headers is not None
    assert record.headers["ce-id"] == f"{UUID}/1"
    assert record.headers["ce-type"] == "io.cutover.journal.state.v1"
    assert event.headers is not None
    assert (event.headers["ce-specversion"], event.headers["ce-subject"]) == ("1.0", "vol1")


# ------------------------------------------------------------------ the streams


async def test_the_streams_are_made_once_and_then_checked(nats: NatsWiring) -> None:
    async with connected(nats.url, name="t", clock=CLOCK) as bus:
        await bootstrap(bus)
        config = (await bus.client.jetstream().stream_info(Subjects.STREAM)).config
        assert config.storage == "file"
        assert config.deny_delete
        assert config.deny_purge
        assert not config.allow_direct


async def test_nothing_can_be_taken_out_of_the_journal(nats: NatsWiring) -> None:
    async with nats.connect("a") as a, stock_client(nats) as client:
        await a.journal.append(state_record(), Tail())
        jetstream = client.jetstream()
        with pytest.raises(nats_error()):
            await jetstream.delete_msg(Subjects.STREAM, 1)
        with pytest.raises(nats_error()):
            await jetstream.purge_stream(Subjects.STREAM)
        assert len((await a.journal.read(NAME)).entries) == 1


def nats_error() -> type[Exception]:
    return nats.js.errors.APIError


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("deny_delete", False),
        ("deny_purge", False),
        ("allow_direct", True),
        ("storage", "memory"),
        ("discard", "old"),
        ("max_age", 60_000_000_000),
        ("max_msgs_per_subject", 5),
        ("max_bytes", 1 << 20),
        ("subjects", ["cutover.journal.*.state"]),
    ],
)
async def test_a_stream_with_another_setting_is_refused_by_its_name(
    tmp_path: Path, setting: str, value: object
) -> None:
    async with nats_server(tmp_path) as server, connected(server.url, name="t", clock=CLOCK) as bus:
        right = {"subjects": [Subjects.ALL], "storage": "file", "discard": "new"}
        denied = {"deny_delete": True, "deny_purge": True}
        config = StreamConfig.from_response({"name": Subjects.STREAM, **right, **denied, setting: value})
        await bus.client.jetstream().add_stream(config)
        with pytest.raises(Refusal) as caught:
            await bootstrap(bus)
    assert caught.value.code is Code.JOURNAL_UNSOUND
    assert f"{setting} is " in caught.value.message


async def test_a_missing_stream_is_said_with_the_way_to_make_it(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server, connected(server.url, name="t", clock=CLOCK) as bus:
        journal = ChainJournal(JetStreamStream(bus))
        for work in (journal.read(NAME), journal.append(state_record(), Tail()), journal.migrations()):
            with pytest.raises(Refusal) as caught:
                await work
            assert caught.value.code is Code.JOURNAL_AWAY
            assert "shared.bus.bootstrap" in caught.value.message


async def test_a_chain_of_a_thousand_records_is_read_whole(nats: NatsWiring) -> None:
    async with nats.connect("a") as a:
        tail = Tail()
        for number in range(600):
            entry = await a.journal.append(flag_set(f"{number}"), tail)
            tail = Tail(sequence=entry.sequence, index=entry.record.index, digest=entry.digest)
        ledger = await a.journal.read(NAME)
        assert await a.journal.read_living() == {NAME: ledger}
    assert ledger.broken is None
    assert len(ledger.entries) == 600


async def test_readers_leave_no_consumers_behind(nats: NatsWiring) -> None:
    async with nats.connect("a") as a, stock_client(nats) as client:
        await a.journal.append(state_record(), Tail())
        for _ in range(5):
            await a.journal.read(NAME)
            await a.journal.read_living()
        info = await client.jetstream().stream_info(Subjects.STREAM)
    assert info.state.consumer_count == 0


# ------------------------------------------------------------------ durability


async def test_a_server_that_syncs_is_believed(nats: NatsWiring) -> None:
    async with nats.connect("a") as a:
        await a.durability.require()
        assert list(a.durability.warnings) == []


@contextlib.asynccontextmanager
async def unsynced(folder: Path) -> AsyncIterator[tuple[Bus, str]]:
    """A server as it is by default."""
    synced = server_config(folder)
    plain = synced.replace("sync_interval: always", "")
    assert plain != synced
    async with nats_server(folder, text=plain) as server, connected(server.url, name="t", clock=CLOCK) as bus:
        yield bus, server.monitor_url


async def test_a_server_that_does_not_sync_is_refused(tmp_path: Path) -> None:
    async with unsynced(tmp_path / "n") as (bus, monitor_url):
        durability = ServerDurability(bus, NatsConfig(monitor_url=monitor_url))
        with pytest.raises(Refusal) as caught:
            await durability.require()
    assert caught.value.code is Code.JOURNAL_UNSYNCED
    assert "sync_interval: always" in caught.value.message
    assert "accept_unsynced_journal = true" in caught.value.message


async def test_a_server_that_does_not_sync_can_be_accepted_and_is_warned_of(tmp_path: Path) -> None:
    async with unsynced(tmp_path / "n") as (bus, monitor_url):
        config = NatsConfig(monitor_url=monitor_url, accept_unsynced_journal=True)
        durability = ServerDurability(bus, config)
        await durability.require()
        assert "power cut" in durability.warnings[0]


async def test_what_cannot_be_established_is_refused(nats: NatsWiring, tmp_path: Path) -> None:
    async with connected(nats.url, name="t", clock=CLOCK) as bus, nats_server(tmp_path / "other") as other:
        for monitor_url, why in (
            (None, "not configured"),
            ("http://127.0.0.1:9", "does not tell"),
            (nats.url.replace("nats", "http"), "does not tell"),
            (other.monitor_url, "another NATS server"),
        ):
            with pytest.raises(Refusal) as caught:
                await ServerDurability(bus, NatsConfig(monitor_url=monitor_url)).require()
            assert caught.value.code is Code.JOURNAL_UNSYNCED
            assert why in caught.value.message


async def test_durability_is_established_anew_after_a_reconnection(tmp_path: Path) -> None:
    server = await start_server(tmp_path)
    port, monitor_port = (int(url.rpartition(":")[2]) for url in (server.url, server.monitor_url))
    async with connected(server.url, name="t", clock=CLOCK) as bus:
        durability = ServerDurability(bus, NatsConfig(monitor_url=server.monitor_url))
        await durability.require()
        back = asyncio.Event()
        bus.on_reconnect(back.set)
        await server.stop()
        with pytest.raises(Refusal) as caught:
            await durability.require()
        assert caught.value.code is Code.JOURNAL_AWAY
        synced = server_config(tmp_path, port=port, monitor_port=monitor_port)
        plain = synced.replace("sync_interval: always", "")
        async with nats_server(tmp_path, text=plain), asyncio.timeout(10):
            await back.wait()
            with pytest.raises(Refusal) as caught:
                await durability.require()
            assert caught.value.code is Code.JOURNAL_UNSYNCED


async def test_a_server_that_cannot_start_says_why(tmp_path: Path, nats: NatsWiring) -> None:
    taken = int(nats.url.rpartition(":")[2])
    with pytest.raises(ServerFailed, match="address already in use"):
        await start_server(tmp_path / "second", port=taken)


# ------------------------------------------------------------------ answers that somebody forges


async def _forging(bus: Bus, subject: str, *payloads: bytes) -> None:
    """Answer to everyone who asks on this subject, before any honest answer, as only somebody with a host's key could."""

    async def forge(message: Msg) -> None:
        for payload in payloads:
            await bus.client.publish(message.reply, payload)

    await bus.client.subscribe(subject, cb=forge)
    await bus.settle()


@pytest.mark.parametrize(
    "forged",
    [b'{"forged":true}', b"no JSON", b"[]", b'{"name":"svc","id":"1","metadata":{"host":7}}', b"\xff" * 9],
)
async def test_an_answer_that_cannot_be_read_hides_nobody_who_is_there(
    nats: NatsWiring, forged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever may answer can send anything."""
    async with (
        connected(nats.url, name="liar", clock=CLOCK) as liar,
        connected(nats.url, name="honest", clock=CLOCK) as honest,
        connected(nats.url, name="asker", clock=CLOCK) as asker,
    ):
        await _forging(liar, "$SRV.INFO.svc", forged, forged)
        async with NatsEndpoints(honest).serve(SERVICE, [ECHO]):
            for _ in range(3):
                (found,) = await asker.instances("svc", timeout_s=0.3)
                assert found.metadata == {"host": "h1"}
    told = [each.getMessage() for each in caplog.records if "$SRV.INFO.svc" in each.getMessage()]
    assert len(told) == 1


async def test_the_word_that_nobody_is_there_hides_nobody_who_answers_all_the_same(nats: NatsWiring) -> None:
    """Nothing at all is what the server says then; whoever may answer can say it, too, and before anyone else."""
    async with (
        connected(nats.url, name="liar", clock=CLOCK) as liar,
        connected(nats.url, name="asker", clock=CLOCK) as asker,
    ):
        here = [b'{"name":"svc","id":"%d","metadata":{"host":"h1"}}' % number for number in range(3)]
        await _forging(liar, "$SRV.INFO.svc", b"", here[0], b"", *here[1:])
        found = await asker.instances("svc", timeout_s=0.5)
        assert [each.instance_id for each in found] == ["0", "1", "2"]


async def test_an_answer_in_the_name_of_another_service_is_none(nats: NatsWiring) -> None:
    async with (
        connected(nats.url, name="liar", clock=CLOCK) as liar,
        connected(nats.url, name="asker", clock=CLOCK) as asker,
    ):
        await _forging(liar, "$SRV.INFO.svc", b'{"name":"other","id":"1","metadata":{}}')
        assert await asker.instances("svc", timeout_s=0.3) == []


async def test_no_inbox_can_be_told_from_one_that_was_seen(nats: NatsWiring) -> None:
    """Whoever is asked sees the inbox of that question, and may publish to those of the same role: he must not find another.

    Cause: the client's ids are counted up from the last one. Failing: they share their beginning, all but the last
    digits. Passing: no two inboxes share more than chance has them share.
    """
    seen: list[str] = []
    async with (
        connected(nats.url, name="asked", clock=CLOCK) as asked,
        connected(nats.url, name="asker", clock=CLOCK) as asker,
    ):

        async def see(message: Msg) -> None:
            seen.append(message.reply)
            await message.respond(b"{}")

        await asked.client.subscribe("question", cb=see)
        await asked.settle()
        for _ in range(20):
            await asker.request_bytes("question", b"", timeout_s=5)
        tokens = {inbox.rpartition(".")[2] for inbox in seen}
        tokens |= {asker.client.new_inbox().rpartition(".")[2] for _ in range(20)}
    assert len(tokens) == 40
    assert min(map(len, tokens)) >= 22  # of 6 bits each
    assert len({token[:8] for token in tokens}) == 40


async def test_every_connection_listens_below_a_prefix_of_its_own(nats: NatsWiring) -> None:
    config = NatsConfig(url=nats.url, inbox_prefix="_INBOX_startup")
    async with (
        connected(config, name="one", clock=CLOCK) as one,
        connected(config, name="other", clock=CLOCK) as other,
    ):
        places = [bus.client.new_inbox().split(".") for bus in (one, one, other)]
    assert [place[0] for place in places] == ["_INBOX_startup"] * 3
    assert places[0][1] == places[1][1] != places[2][1]
    assert len(places[0][1]) >= 22


# ------------------------------------------------------------------ a journal that loses records


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("discard", "old"),
        ("max_msgs", 20),
        ("max_age", 3600 * 10**9),
        ("allow_msg_ttl", True),
        ("republish", {"src": ">", "dest": "copy.>"}),
    ],
)
async def test_a_journal_with_settings_that_lose_records_is_refused(
    tmp_path: Path, setting: str, value: object
) -> None:
    """By the step that creates it, by startup before it admits anyone, and in what doctor shows."""
    async with nats_server(tmp_path) as server, connected(server.url, name="t", clock=CLOCK) as bus:
        await require_journal(bus)  # there is none
        await bootstrap(bus)
        await require_journal(bus)
        info = await bus.client.request("$JS.API.STREAM.INFO.CUTOVER_JOURNAL", b"")
        changed = orjson.loads(info.data)["config"] | {setting: value}
        answer = await bus.client.request("$JS.API.STREAM.UPDATE.CUTOVER_JOURNAL", orjson.dumps(changed))
        assert "error" not in orjson.loads(answer.data)
        for check in (bootstrap, require_journal):
            with pytest.raises(Refusal, match=setting) as caught:
                await check(bus)
            assert caught.value.code is Code.JOURNAL_UNSOUND
        found = await look_at_bus(NatsConfig(url=server.url), CLOCK)
        assert setting in str(found.streams["CUTOVER_JOURNAL"])


async def test_whoever_begins_to_serve_while_the_server_does_not_answer_goes_on(
    nats: NatsWiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nats-py gives up after ten seconds, and a host ended with its volumes open. What it subscribed is heard later."""
    async with connected(nats.url, name="svc", clock=CLOCK) as bus:

        async def late() -> None:
            raise nats_errors.FlushTimeoutError

        with monkeypatch.context() as patch:
            patch.setattr(bus.client, "flush", late)
            with pytest.raises(Refusal, match="has not taken what was sent to it") as refusal:
                await bus.settle()
            assert refusal.value.code is Code.JOURNAL_AWAY
            serving = NatsEndpoints(bus).serve(SERVICE, [ECHO])
            await serving.__aenter__()
        try:
            await bus.settle()
            async with nats.connect("asker") as wire:
                reply = await wire.requests.request(
                    "svc.echo.here", PlainRequest(), PlainRequest, timeout_s=5
                )
            assert reply.operation_id == "here"
        finally:
            await serving.__aexit__(None, None, None)


async def test_question_that_the_server_does_not_carry_is_refused_with_what_it_does(nats: NatsWiring) -> None:
    async with nats.connect("asker") as wire:
        question = PlainRequest(operation_id="x" * (2 << 20))
        with pytest.raises(Refusal, match=r"at most 1048576 bytes \(`max_payload`\)") as refusal:
            await wire.requests.request("svc.echo.here", question, PlainRequest, timeout_s=5)
    assert refusal.value.code is Code.TOO_LARGE


async def test_answer_that_the_server_does_not_carry_is_refused_and_not_lost(nats: NatsWiring) -> None:
    async def too_much(_about: str, _request: PlainRequest) -> PlainRequest:
        return PlainRequest(operation_id="x" * (2 << 20))

    endpoint = Endpoint(name="echo", subject="svc.echo.*", request=PlainRequest, handler=too_much)
    async with nats.connect("svc") as wire, wire.endpoints.serve(SERVICE, [endpoint]):
        with pytest.raises(Refusal, match="and this NATS server carries 1048576") as refusal:
            await wire.requests.request("svc.echo.here", PlainRequest(), PlainRequest, timeout_s=5)
        assert refusal.value.code is Code.TOO_LARGE
