"""What startup answers: admission of a host. Each migration is judged by itself: one that stays closed stops none."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from services.startup.evidence import TakenOver
from services.startup.owners import Owners
from services.startup.replay import Removed, Replay
from shared.bounded import for_each
from shared.bus.interface import Discovery, Endpoint, Journal, Requests
from shared.clock import Clock
from shared.logs.about import about, about_host
from shared.messages.admission import (
    Admission,
    AdmissionReply,
    AdmissionRequest,
    Closed,
    WitnessView,
    admission_subject,
)
from shared.messages.codec import MESSAGE_BYTES_MAX
from shared.messages.control import PlainRequest
from shared.messages.host import HOST_SERVICE_NAME, HostStatusReply, host_subject
from shared.migration.ledger import Ledger
from shared.migration.names import NAME_RULE, is_valid_name
from shared.migration.refusals import Code, Refusal

_log = logging.getLogger(__name__)

SERVICE_NAME = "cutover-startup"
DISCOVERY_TIMEOUT_S = 0.5
STATUS_TIMEOUT_S = 2.5
AT_ONCE_MAX = 8
ROUNDS_MAX = 3  # in which one migration is judged, where its journal moves on meanwhile

# Not the migration's fault: the whole admission is asked for again.
_TRANSIENT = frozenset({Code.JOURNAL_AWAY, Code.SERVICE_AWAY, Code.BUSY})
# What a dead host has sent may still arrive while it is judged: then a remedy is stale, or, on a journal that had gone back, the
# chain is damaged once more, and the next round repairs it.
_JUDGED_ANEW = frozenset({Code.STALE, Code.JOURNAL_UNSOUND})
_NO_WITNESS = "its host has no witness of it"

_Outcome = Admission | Closed | Removed


@dataclass(slots=True)
class _Asked:
    """A question, and its answer once there is one."""

    request: AdmissionRequest
    reply: AdmissionReply | None = None


class _Turn:
    """The questions of one host, one at a time. One that was asked again meanwhile is answered by the first answer.

    Else a host that waits less long than its judgement takes would never have one: each would begin behind the one before.
    """

    def __init__(self) -> None:
        self._free = asyncio.Lock()
        self._waiting = 0
        self._last: _Asked | None = None  # kept while somebody waits

    @asynccontextmanager
    async def of(self, request: AdmissionRequest) -> AsyncIterator[_Asked]:
        """Wait for the turn of a question; it has its reply where it was answered while it waited."""
        asked, earlier = _Asked(request), self._last
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        last = self._last
        if last is not None and last is not earlier and _is_same(last.request, request):
            asked.reply = last.reply
        try:
            yield asked
        finally:
            self._last = asked if self._waiting else None
            self._free.release()


class Startup:
    """Admits hosts."""

    def __init__(self, *, journal: Journal, requests: Requests, discovery: Discovery, clock: Clock) -> None:
        self._journal = journal
        self._requests = requests
        self._discovery = discovery
        self._clock = clock
        self._turns: defaultdict[str, _Turn] = defaultdict(_Turn)  # one for each host there ever was

    def endpoints(self) -> Sequence[Endpoint]:
        """What is served."""
        admit = Endpoint(
            name="admit",
            subject=admission_subject("*"),
            request=AdmissionRequest,
            handler=self.admit,
            request_bytes_max=MESSAGE_BYTES_MAX,  # it carries every witness of the host
        )
        return (admit,)

    async def admit(self, host: str, request: AdmissionRequest) -> AdmissionReply:
        """Replay the journal for one run of a host.

        Raises:
            Refusal: `stale` for an older run; `busy` while another run of the host is alive, or where it does not wait for the
                one volume any more; `bad-request`; and whatever keeps the journal, its owners or that host from answering.
                Then nothing is admitted; ask again.
        """
        _refuse_malformed(host, request)
        async with self._turns[host].of(request) as asked:
            if asked.reply is None:
                asked.reply = await self._admit(host, request)
        return asked.reply

    async def _admit(self, host: str, request: AdmissionRequest) -> AdmissionReply:
        ledgers = await self._ledgers_of(host)
        _refuse_repeated_run(request, ledgers)
        await self._refuse_another_run(request)
        _refuse_older_run(request, ledgers)
        _refuse_older_directory(request, ledgers)
        outcomes = await self._judged(request, ledgers)
        _tell(host, request.run, outcomes)
        return AdmissionReply(
            admitted=tuple(each for each in outcomes if isinstance(each, Admission)),
            closed=tuple(each for each in outcomes if isinstance(each, Closed)),
            removed=tuple(each.migration for each in outcomes if isinstance(each, Removed)),
        )

    async def _refuse_another_run(self, request: AdmissionRequest) -> None:
        # Whoever asks serves nothing yet, so that it cannot be itself that is found, even under the same number: two machines
        # of one name, each with a new state directory, are both in their first run.
        found = await self._discovery.instances(HOST_SERVICE_NAME, timeout_s=DISCOVERY_TIMEOUT_S)
        others = [
            each
            for each in found
            if each.metadata.get("host") == request.host and not _is_asker(each.metadata, request)
        ]
        if others:
            run = others[0].metadata.get("run")
            raise Refusal(
                Code.BUSY,
                f"Run {request.run} of host {request.host!r} is not admitted while another run, {run}, is alive.",
            )
        if request.only:
            await self._refuse_open(request)

    async def _refuse_open(self, request: AdmissionRequest) -> None:
        """Refuse a question about one volume that whoever asked has an answer to by now, as a copy that comes late.

        The volume may have been opened by that answer, and the flag in force be the one that it clones with.
        """
        subject = host_subject(request.host, "status", request.only)
        status = await self._requests.request(
            subject, PlainRequest(), HostStatusReply, timeout_s=STATUS_TIMEOUT_S
        )
        is_open = any(each.name == request.only for each in status.migrations)
        if is_open or request.only not in status.opening:
            raise Refusal(
                Code.BUSY,
                f"{request.only!r} is not judged: host {request.host!r} does not wait for that any more.",
            )

    async def _ledgers_of(self, host: str) -> list[Ledger]:
        """The migrations that the journal has for a host."""
        ledgers: list[Ledger] = []
        for name, found in (await self._journal.read_living()).items():
            if isinstance(found, Refusal):  # a witness of it is judged all the same
                _log.warning("the records cannot be read: %s", found.message, extra=about(name))
            elif found.exists and found.host == host:
                ledgers.append(found)
        return ledgers

    async def _judged(self, request: AdmissionRequest, ledgers: Sequence[Ledger]) -> list[_Outcome]:
        """The outcomes. Whoever is sent away in the middle has to know that something may be recorded of its run."""
        try:
            return await self._judge_all(request, ledgers)
        except Refusal as refusal:
            if refusal.code in _TRANSIENT:
                raise Refusal(
                    Code.BUSY, f"Not everything could be judged yet: {refusal.message}"
                ) from refusal
            raise

    async def _judge_all(self, request: AdmissionRequest, ledgers: Sequence[Ledger]) -> list[_Outcome]:
        owners = Owners(
            self._requests,
            self._clock,
            host=request.host,
            run=request.run,
            life=request.question or request.life,
        )
        replay = Replay(
            self._journal,
            owners,
            host=request.host,
            tried=request.tried,
            given_away=request.given_away,
            refuse_others=lambda: self._refuse_another_run(request),
        )
        judging = _Judging(replay, request, ledgers)
        return await for_each(judging.names(), judging.judge, at_once=AT_ONCE_MAX)


class _Judging:
    """The migrations of one admission, by name."""

    def __init__(self, replay: Replay, request: AdmissionRequest, ledgers: Sequence[Ledger]) -> None:
        self._replay = replay
        self._request = request
        self._witnesses: dict[str, WitnessView] = {each.migration: each for each in request.witnesses}
        self._unreadable = {each.migration: each.reason for each in request.unreadable}
        self._ledgers = {each.migration: each for each in ledgers}

    def names(self) -> list[str]:
        """Every migration that the host or the journal knows of, within the part that is asked for; or the one that is."""
        known = {self._request.only} if self._request.only else self._known()
        return sorted(filter(self._request.covers, known))

    def _known(self) -> set[str]:
        return {*self._witnesses, *self._unreadable, *self._ledgers}

    async def judge(self, name: str) -> _Outcome:
        """Judge one; what stays closed is an outcome, too."""
        try:
            return await self._judge_anew(name)
        except Refusal as refusal:
            if refusal.code in _TRANSIENT:
                raise
            witness, ledger = self._witnesses.get(name), self._ledgers.get(name)
            uuid = witness.uuid if witness is not None else ledger.uuid if ledger is not None else None
            given = refusal.given if isinstance(refusal, TakenOver) else None
            return Closed(
                migration=name, uuid=uuid, code=refusal.code, message=refusal.message, given_away=given
            )

    async def _judge_anew(self, name: str) -> _Outcome:
        """Judge one, again where the journal has moved on meanwhile."""
        for _round in range(ROUNDS_MAX - 1):
            try:
                return await self._judge_once(name)
            except Refusal as refusal:
                if refusal.code not in _JUDGED_ANEW:
                    raise
                _log.info("judged anew: %s", refusal.message, extra=about(name))
        return await self._judge_once(name)

    async def _judge_once(self, name: str) -> _Outcome:
        if name not in self._known():
            return Removed(name)  # nobody has it any more
        witness = self._witnesses.get(name)
        if witness is not None:
            return await self._replay.with_witness(witness)
        reason = self._unreadable.get(name)
        why = _NO_WITNESS if reason is None else f"its witness cannot be believed ({reason})"
        return await self._replay.without_witness(name, why)


def _tell(host: str, run: int, outcomes: Sequence[_Outcome]) -> None:
    for outcome in outcomes:
        match outcome:
            case Admission():
                _log.info(
                    "admitted as %s in %s: %s",
                    outcome.label,
                    outcome.state,
                    outcome.reason,
                    extra=about(outcome.migration, outcome.attempt, host=host),
                )
            case Closed():
                _log.warning("stays closed: %s", outcome.message, extra=about(outcome.migration, host=host))
            case Removed():
                _log.info("was cleaned up", extra=about(outcome.migration, host=host))
    _log.info("run %d of host %s has its answer", run, host, extra=about_host(host))


def _is_same(before: AdmissionRequest, request: AdmissionRequest) -> bool:
    """Whether a question was only asked again. About one volume it never is: an operator may have given his word since."""
    return not request.only and replace(before, asked_before=request.asked_before) == request


def _is_asker(metadata: Mapping[str, str], request: AdmissionRequest) -> bool:
    """Whether this is the very process that asks, while it serves others, for one that it has closed."""
    return bool(request.only and request.life) and metadata.get("life") == request.life


def _refuse_malformed(host: str, request: AdmissionRequest) -> None:
    if request.host != host:
        raise Refusal(
            Code.BAD_REQUEST, f"The subject is of host {host!r}, and the request of {request.host!r}."
        )
    names = [
        *(each.migration for each in request.witnesses),
        *(each.migration for each in request.unreadable),
        *filter(None, (request.only, request.names_from, request.names_before)),
    ]
    for name in names:
        if not is_valid_name(name):
            raise Refusal(Code.BAD_REQUEST, f"{name!r} is no name of a migration: {NAME_RULE}.")


def _refuse_older_run(request: AdmissionRequest, ledgers: Sequence[Ledger]) -> None:
    known = _known_run(request, ledgers)
    if request.run < known:
        raise _stale(request, known)


def _refuse_repeated_run(request: AdmissionRequest, ledgers: Sequence[Ledger]) -> None:
    """Whoever has not asked before in its run finds records of it only where the number was counted from an old copy."""
    if request.run == _known_run(request, ledgers) and not request.asked_before:
        raise _stale(request, request.run)


def _refuse_older_directory(request: AdmissionRequest, ledgers: Sequence[Ledger]) -> None:
    """Refuse a state directory that knows nothing of a run whose records there are: it was put back from before that run.

    A host makes durable that it asks before it does, with the life of its process, and that it was admitted before it opens
    anything. So a run later than the last admitted one is known to it by its life, or was never its own.
    """
    if request.admitted_run is None:
        return
    tried = {(each.run, each.life) for each in request.tried}
    for ledger in ledgers:
        for record in (entry.record for entry in ledger.entries):
            is_later = record.host == request.host and record.run > request.admitted_run
            if is_later and (record.run, record.life) not in tried:
                raise _stale(request, record.run)


def _known_run(request: AdmissionRequest, ledgers: Sequence[Ledger]) -> int:
    return max(
        (*(ledger.run for ledger in ledgers), *(witness.run for witness in request.witnesses)), default=0
    )


def _stale(request: AdmissionRequest, known: int) -> Refusal:
    return Refusal(
        Code.STALE,
        f"Run {request.run} of host {request.host!r} is not admitted: run {known} has been there. Its state directory "
        "is a new one, or an old copy: bring the right one back, or give this host another name.",
    )
