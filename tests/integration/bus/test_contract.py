"""What every bus keeps to, whether NATS stands behind it or memory."""

import asyncio
from dataclasses import dataclass, replace

import pytest

from shared.bus.chain import WrongLastSequence
from shared.bus.interface import Endpoint, Handler, ServiceDescription, Unanswered
from shared.messages.control import PlainRequest, ThrottleRequest
from shared.migration.ledger import Tail
from shared.migration.records import Subjects
from shared.migration.refusals import Code, Refusal
from tests.support.buses import Wiring
from tests.support.records import NAME, fault_record, flag_clear, flag_set, state_record, tombstone


@dataclass(frozen=True, kw_only=True)
class Answer:
    about: str
    limit: int | None = None


async def tell(about: str, request: ThrottleRequest) -> Answer:
    return Answer(about=about, limit=request.bytes_per_s)


def service(name: str = "svc", **metadata: str) -> ServiceDescription:
    return ServiceDescription(name=name, description="of a test", metadata=metadata)


def endpoint(
    handler: Handler = tell, subject: str = "svc.limit.*", request: type = ThrottleRequest
) -> Endpoint:
    return Endpoint(name="limit", subject=subject, request=request, handler=handler)


async def refusal_of(wiring: Wiring, handler: Handler = tell, subject: str = "svc.limit.vol1") -> Refusal:
    async with (
        wiring.connect("a") as a,
        wiring.connect("b") as b,
        a.endpoints.serve(service(), [endpoint(handler)]),
    ):
        with pytest.raises(Refusal) as caught:
            await b.requests.request(subject, ThrottleRequest(), Answer, timeout_s=2)
    return caught.value


async def test_a_request_is_answered(wiring: Wiring) -> None:
    async with wiring.connect("a") as a, wiring.connect("b") as b, a.endpoints.serve(service(), [endpoint()]):
        answer = await b.requests.request(
            "svc.limit.vol1", ThrottleRequest(bytes_per_s=7), Answer, timeout_s=2
        )
    assert answer == Answer(about="vol1", limit=7)


async def test_a_subject_without_a_name_is_answered(wiring: Wiring) -> None:
    async with wiring.connect("a") as a, a.endpoints.serve(service(), [endpoint(subject="svc.all")]):
        answer = await a.requests.request("svc.all", ThrottleRequest(), Answer, timeout_s=2)
    assert answer == Answer(about="")


async def test_every_name_in_a_subject_is_told_and_checked(wiring: Wiring) -> None:
    async def tell_both(host: str, migration: str, _request: object) -> Answer:
        return Answer(about=f"{migration} of {host}")

    served = endpoint(tell_both, "svc.limit.*.*")
    async with wiring.connect("a") as a, a.endpoints.serve(service(), [served]):
        answer = await a.requests.request("svc.limit.h1.vol1", ThrottleRequest(), Answer, timeout_s=2)
        assert answer == Answer(about="vol1 of h1")
        for subject in ("svc.limit.H_1.vol1", "svc.limit.h1.VOL"):
            with pytest.raises(Refusal) as caught:
                await a.requests.request(subject, ThrottleRequest(), Answer, timeout_s=2)
            assert caught.value.code is Code.BAD_NAME


async def test_a_refusal_arrives_as_it_was(wiring: Wiring) -> None:
    async def refuse(_about: str, _request: object) -> object:
        raise Refusal(Code.NOT_ALLOWED, "Not now: «state».\nLater.", ("sync", "cleanup"))

    refusal = await refusal_of(wiring, refuse)
    assert refusal.code is Code.NOT_ALLOWED
    assert refusal.message == "Not now: «state».\nLater."
    assert refusal.allowed == ("sync", "cleanup")
    assert not isinstance(refusal, Unanswered)


async def test_the_text_of_what_nobody_foresaw_stays_inside(
    wiring: Wiring, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_about: str, _request: object) -> object:
        raise ValueError("the secret")

    refusal = await refusal_of(wiring, fail)
    assert refusal.code is Code.INTERNAL
    assert "secret" not in refusal.message
    assert "the secret" in caplog.text


async def test_a_bad_name_is_refused_before_anyone_handles_it(wiring: Wiring) -> None:
    refusal = await refusal_of(wiring, subject="svc.limit.Bad_Name")
    assert refusal.code is Code.BAD_NAME
    assert "Bad_Name" in refusal.message


async def test_a_request_of_another_shape_is_refused(wiring: Wiring) -> None:
    async with wiring.connect("a") as a, a.endpoints.serve(service(), [endpoint(request=PlainRequest)]):
        with pytest.raises(Refusal) as caught:
            await a.requests.request("svc.limit.v", ThrottleRequest(bytes_per_s=1), Answer, timeout_s=2)
    assert caught.value.code is Code.BAD_REQUEST
    assert "bytes_per_s: unknown field" in caught.value.message


async def test_nobody_there_is_told_at_once(wiring: Wiring) -> None:
    async with wiring.connect("a") as a:
        async with asyncio.timeout(1):
            with pytest.raises(Refusal) as caught:
                await a.requests.request("svc.nobody", PlainRequest(), Answer, timeout_s=30)
    assert caught.value.code is Code.SERVICE_AWAY
    assert not isinstance(caught.value, Unanswered)
    assert "svc.nobody" in caught.value.message


async def test_no_answer_in_time_is_told_apart(wiring: Wiring) -> None:
    release = asyncio.Event()

    async def hang(_about: str, _request: object) -> object:
        await release.wait()
        return Answer(about="late")

    async with wiring.connect("a") as a, a.endpoints.serve(service(), [endpoint(hang)]):
        with pytest.raises(Unanswered):
            await a.requests.request("svc.limit.v", ThrottleRequest(), Answer, timeout_s=0.1)
        release.set()


async def test_a_slow_request_keeps_no_other_waiting(wiring: Wiring) -> None:
    release = asyncio.Event()

    async def handle(about: str, _request: object) -> object:
        if about == "slow":
            await release.wait()
        else:
            release.set()
        return Answer(about=about)

    async with wiring.connect("a") as a, a.endpoints.serve(service(), [endpoint(handle)]):
        answers = await asyncio.gather(
            *(
                a.requests.request(f"svc.limit.{name}", ThrottleRequest(), Answer, timeout_s=5)
                for name in ("slow", "quick")
            )
        )
    assert [answer.about for answer in answers] == ["slow", "quick"]


async def test_what_is_being_answered_is_answered_before_a_service_ends(wiring: Wiring) -> None:
    began, release = asyncio.Event(), asyncio.Event()

    async def handle(about: str, _request: object) -> object:
        began.set()
        await release.wait()
        return Answer(about=about)

    async with wiring.connect("a") as a, wiring.connect("b") as b, asyncio.TaskGroup() as tasks:
        async with a.endpoints.serve(service(), [endpoint(handle)]):
            asking = tasks.create_task(
                b.requests.request("svc.limit.v", ThrottleRequest(), Answer, timeout_s=5)
            )
            await began.wait()
            asyncio.get_running_loop().call_later(0.05, release.set)
        assert (await asking).about == "v"
        with pytest.raises(Refusal) as caught:
            await b.requests.request("svc.limit.v", ThrottleRequest(), Answer, timeout_s=5)
        assert caught.value.code is Code.SERVICE_AWAY


async def test_services_of_one_name_share_their_requests(wiring: Wiring) -> None:
    handled: list[str] = []

    def counting(who: str) -> Handler:
        async def handle(about: str, _request: object) -> object:
            handled.append(who)
            return Answer(about=about)

        return handle

    async with (
        wiring.connect("a") as a,
        wiring.connect("b") as b,
        a.endpoints.serve(service(), [endpoint(counting("a"))]),
        b.endpoints.serve(service(), [endpoint(counting("b"))]),
    ):
        for _ in range(40):
            await a.requests.request("svc.limit.v", ThrottleRequest(), Answer, timeout_s=2)
    assert len(handled) == 40
    assert set(handled) == {"a", "b"}


async def test_who_is_there_is_found_with_what_they_say_of_themselves(wiring: Wiring) -> None:
    async with wiring.connect("a") as a, wiring.connect("b") as b:
        async with (
            a.endpoints.serve(service("host", host="h1", run="3"), []),
            b.endpoints.serve(service("host", host="h2", run="1"), []),
            b.endpoints.serve(service("other"), []),
        ):
            found = await a.discovery.instances("host", timeout_s=0.3)
            assert sorted(each.metadata["host"] for each in found) == ["h1", "h2"]
            assert len({each.instance_id for each in found}) == 2
        async with asyncio.timeout(5):
            assert list(await a.discovery.instances("host", timeout_s=30)) == []


async def test_what_is_told_is_heard(wiring: Wiring) -> None:
    async with (
        wiring.connect("a") as a,
        wiring.connect("b") as b,
        b.listening.listen("cutover.progress.*", "other.>") as heard,
    ):
        await a.requests.publish("cutover.progress.vol1", Answer(about="x"))
        await a.requests.publish("nobody.cares", Answer(about="y"))
        await a.requests.publish("other.a.b", Answer(about="z"))
        async with asyncio.timeout(2):
            told = [await anext(heard), await anext(heard)]
    assert [each.subject for each in told] == ["cutover.progress.vol1", "other.a.b"]
    assert told[0].payload == b'{"about":"x","limit":null}'


async def test_a_chain_is_read_as_it_was_written(wiring: Wiring) -> None:
    async with wiring.connect("a") as a, wiring.connect("b") as b:
        assert (await b.journal.read(NAME)).tail == Tail()
        entries = [
            await a.journal.append(record, (await b.journal.read(NAME)).tail)
            for record in (state_record(), flag_set(), fault_record(), flag_clear())
        ]
        ledger = await b.journal.read(NAME)
        assert ledger.broken is None
        assert list(ledger.entries) == entries
        assert list(await b.journal.migrations()) == [NAME]


async def test_what_exists_is_read_in_one_pass_as_one_by_one(wiring: Wiring) -> None:
    """A consumer for each name that there ever was took longer than a host waits for its admission."""
    async with wiring.connect("a") as a:
        assert await a.journal.read_living() == {}
        for name in ("vol1", "vol2", "vol3"):
            for record in (state_record(migration=name), flag_set(migration=name)):
                await a.journal.append(record, (await a.journal.read(name)).tail)
        end = await a.journal.append(tombstone(migration="vol2"), (await a.journal.read("vol2")).tail)
        await a.journal.append(tombstone(migration="vol3"), (await a.journal.read("vol3")).tail)
        tail = (await a.journal.read("vol2")).tail
        anew = await a.journal.append(state_record("anew", migration="vol2", uuid="u2"), tail)
        await a.stream.publish(
            "cutover.journal.vol4.state", b"junk", {}, subjects=Subjects.chain("vol4"), last_sequence=0
        )
        living = await a.journal.read_living()
        assert living.keys() == {"vol1", "vol2", "vol4"}
        assert living["vol1"] == await a.journal.read("vol1")
        assert living["vol2"] == replace(await a.journal.read("vol2"), entries=(end, anew))
        unreadable = living["vol4"]
        assert isinstance(unreadable, Refusal)
        assert unreadable.code is Code.JOURNAL_UNSOUND


async def test_of_many_writers_on_one_tail_one_wins(wiring: Wiring) -> None:
    async with wiring.connect("a") as a, wiring.connect("b") as b:
        results = await asyncio.gather(
            *(
                wire.journal.append(state_record(f"{number}"), Tail())
                for number, wire in enumerate((a, b, a, b, a))
            ),
            return_exceptions=True,
        )
        lost = [result for result in results if isinstance(result, Refusal)]
        assert [refusal.code for refusal in lost] == [Code.BUSY] * 4
        assert len((await a.journal.read(NAME)).entries) == 1


async def test_a_condition_covers_every_subject_of_a_migration(wiring: Wiring) -> None:
    async with wiring.connect("a") as a:
        await a.journal.append(state_record(), Tail())
        for _ in range(2):
            with pytest.raises(WrongLastSequence):
                await a.stream.publish(
                    "cutover.journal.vol1.flag", b"{}", {}, subjects=Subjects.chain(NAME), last_sequence=0
                )
        await a.journal.append(
            state_record(migration="vol2"), Tail()
        )  # another's chain has its own condition
        tail = (await a.journal.read(NAME)).tail
        assert (await a.journal.append(flag_set(), tail)).sequence > tail.sequence


async def test_records_that_arrive_while_reading_leave_a_whole_chain(wiring: Wiring) -> None:
    async with wiring.connect("a") as a, wiring.connect("b") as b, asyncio.TaskGroup() as tasks:
        tail = (await a.journal.append(state_record(), Tail())).record.index
        assert tail == 1

        async def write() -> None:
            for number in range(30):
                ledger = await a.journal.read(NAME)
                await a.journal.append(fault_record(f"{number}"), ledger.tail)

        writing = tasks.create_task(write())
        lengths = [0]
        while not writing.done():
            ledger = await b.journal.read(NAME)
            assert ledger.broken is None
            lengths.append(len(ledger.entries))
        assert lengths == sorted(lengths)
        assert len((await b.journal.read(NAME)).entries) == 31


async def test_a_record_that_is_none_makes_the_journal_unsound(wiring: Wiring) -> None:
    async with wiring.connect("a") as a:
        await a.stream.publish(
            "cutover.journal.vol1.state", b"junk", {}, subjects=Subjects.chain(NAME), last_sequence=0
        )
        with pytest.raises(Refusal) as caught:
            await a.journal.read(NAME)
    assert caught.value.code is Code.JOURNAL_UNSOUND
