"""Asks startup which volumes this run may open, by the journal and by what the state directory holds (rule R1).

That this run asks, and that it was told, is durable in the state directory before anything follows from it: a later start knows
by that which witness is an old copy. No device is touched here.
"""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

from services.write_cloning.surroundings import Surroundings
from services.write_cloning.witness import Witness
from shared.bus.interface import Unanswered
from shared.messages.admission import (
    AdmissionReply,
    AdmissionRequest,
    UnreadableWitness,
    WitnessView,
    admission_subject,
)
from shared.messages.codec import MESSAGE_BYTES_MAX, encode
from shared.migration.names import NAME_RULE, is_valid_name
from shared.migration.refusals import Code, Refusal

ADMISSION_TIMEOUT_S = 60.0  # for each part
# Of a question's witnesses; what else it says needs far less than the other half.
PART_BYTES_MAX = MESSAGE_BYTES_MAX // 2
# And more: what a short witness, or none that can be read, counts for, so that the answer fits, too.
VERDICT_BYTES = 1024

T = TypeVar("T")

_AWAY = frozenset({Code.SERVICE_AWAY, Code.JOURNAL_AWAY})


@dataclass(frozen=True, slots=True)
class Judged:
    """What startup says, and the witnesses that it was shown, by the name of their migration."""

    reply: AdmissionReply
    witnesses: Mapping[str, Witness]


class Admissions:
    """The questions of one run of a host."""

    def __init__(self, around: Surroundings) -> None:
        """Begin as one who has not asked yet."""
        self._around = around
        self._has_asked = False  # so that somebody may have heard it, and recorded something for it
        self._question = ""  # the name of the last one; what startup records for it bears that

    async def ask(self, only: str) -> Judged:
        """Have all that this host has judged, or a single one.

        Raises:
            Refusal: there is no answer yet, or it could not be noted; nothing may be opened.
        """
        around = self._around
        vain = "" if self._has_asked else self._question
        if not self._has_asked:
            # A copy of the state directory that was taken while nobody answered shall not know the question that is answered.
            self._question = around.new_token()
        witnesses, unreadable = await read_witnesses(around)
        known = {witness.migration: witness for witness in witnesses}
        openings = around.witnesses.openings
        await _kept(openings.note_try(around.run, self._question, instead_of=vain))
        opened, runs = await _kept(openings.read()), await _kept(openings.runs())
        given_away = await _kept(openings.given_away())
        question = AdmissionRequest(
            host=around.host,
            run=around.run,
            life=around.life,
            question=self._question,
            only=only,
            witnesses=tuple(witness.view(opened.get(witness.uuid)) for witness in witnesses),
            unreadable=tuple(unreadable),
            admitted_run=runs.admitted,
            tried=runs.tried,
            given_away=tuple(each for each in given_away if only in {"", each.migration}),
        )
        # One part after the other: nothing is opened, nor noted as admitted, before all are answered.
        reply = _together([await self._request(part) for part in _parts(question)])
        believed, is_any_closed = _believed(reply, known), bool(reply.closed)
        await _kept(openings.note_admitted(around.run, believed, is_any_closed=is_any_closed))
        return Judged(reply, known)

    async def _request(self, part: AdmissionRequest) -> AdmissionReply:
        subject = admission_subject(self._around.host)
        request = replace(part, asked_before=self._has_asked)
        try:
            reply = await self._around.requests.request(
                subject, request, AdmissionReply, timeout_s=ADMISSION_TIMEOUT_S
            )
        except Refusal as refusal:
            # Away: nobody was reached, or nothing was judged. Anything else may have left records of this run.
            is_definite = not isinstance(refusal, Unanswered) and refusal.code in _AWAY
            self._has_asked = self._has_asked or not is_definite
            raise
        self._has_asked = True
        _refuse_malformed(reply)
        return reply


async def read_witnesses(around: Surroundings) -> tuple[list[Witness], list[UnreadableWitness]]:
    """Every witness of this host, and those that cannot be believed.

    Raises:
        Refusal: (`busy`) it cannot be known which there are.
    """
    return await _kept(around.witnesses.read_all())


async def _kept(doing: Awaitable[T]) -> T:
    try:
        return await doing
    except OSError as error:
        why = error.strerror or error
        raise Refusal(Code.BUSY, f"What host.state_dir keeps could not be read or written: {why}.") from error


def _parts(question: AdmissionRequest) -> list[AdmissionRequest]:
    """The question in messages that NATS carries, each about a range of names: as a rule one, about all of them.

    The witness of a volume has its faults with it, so those of some hundred volumes on an array that fails are too much for one.
    """
    told: list[WitnessView | UnreadableWitness] = [*question.witnesses, *question.unreadable]
    bounds, size_bytes = [""], 0
    for each in sorted(told, key=lambda each: each.migration):
        if not question.covers(each.migration):
            continue
        own_bytes = max(len(encode(each)), VERDICT_BYTES)
        if size_bytes and size_bytes + own_bytes > PART_BYTES_MAX:
            bounds.append(each.migration)
            size_bytes = 0
        size_bytes += own_bytes
    return [_part(question, first, end) for first, end in pairwise([*bounds, ""])]


def _part(question: AdmissionRequest, first: str, end: str) -> AdmissionRequest:
    part = replace(question, names_from=first, names_before=end)
    return replace(
        part,
        witnesses=tuple(each for each in part.witnesses if part.covers(each.migration)),
        unreadable=tuple(each for each in part.unreadable if part.covers(each.migration)),
    )


def _together(replies: Sequence[AdmissionReply]) -> AdmissionReply:
    return AdmissionReply(
        admitted=tuple(each for reply in replies for each in reply.admitted),
        closed=tuple(each for reply in replies for each in reply.closed),
        removed=tuple(each for reply in replies for each in reply.removed),
    )


def _refuse_malformed(reply: AdmissionReply) -> None:
    """Names become names of files."""
    admitted, closed = (
        [each.migration for each in reply.admitted],
        [each.migration for each in reply.closed],
    )
    for name in (*admitted, *closed, *reply.removed):
        if not is_valid_name(name):
            raise Refusal(
                Code.INTERNAL, f"startup speaks of {name!r}, which is no name of a migration: {NAME_RULE}."
            )


def _believed(reply: AdmissionReply, witnesses: Mapping[str, Witness]) -> dict[str, int]:
    """The runs of the witnesses by which startup has admitted, by UUID."""
    admitted = [(each, witnesses.get(each.migration)) for each in reply.admitted if each.is_witness_believed]
    return {
        witness.uuid: witness.run
        for each, witness in admitted
        if witness is not None and witness.uuid == each.uuid
    }
