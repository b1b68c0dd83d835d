"""What journal and witness know together of a migration that is not open: the facts that a recovery is judged on. Pure."""

from dataclasses import dataclass

from shared.messages.admission import GivenAway, WitnessView
from shared.messages.host import ClosedView, HostStatusReply
from shared.messages.recovery import ExamineReply, Finding, Telling
from shared.messages.standing import STARTUPS_OWN, is_from_before
from shared.migration.devices import Side
from shared.migration.ledger import Ledger
from shared.migration.records import DevicePair, RepairRecord, StateRecord
from shared.migration.recovery import Held, Known, Standing, held_by
from shared.migration.refusals import Code, Refusal
from shared.migration.states import Flag

_NOT_EXAMINED = {
    Standing.OPEN: "its host has it in use, and is not asked",
    Standing.WAITING: "its host is not admitted yet, and cannot be asked",
    Standing.CLOSED: "its host does not answer",
    Standing.AWAY: "its host does not answer",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """One migration. `host` is the one that was asked: the recorded one, or the one that shall take it over."""

    ledger: Ledger
    host: str
    standing: Standing
    status: HostStatusReply | None  # of `host`; None when it does not answer
    examined: ExamineReply | None
    unread: str = (
        ""  # why the records cannot be read, and what to do: then `ledger` is empty, and says nothing
    )
    waits_because: str = ""  # why its host is not admitted yet, where it is up and waits for that

    @property
    def witness(self) -> WitnessView | None:
        """The witness that the host has under this name, whoever's it is."""
        return self.examined.witness if self.examined is not None else None

    @property
    def uuid(self) -> str | None:
        """Of the migration that is meant: the journal's, where it knows one."""
        return self.ledger.uuid or (self.witness.uuid if self.witness is not None else None)

    @property
    def is_told_of(self) -> bool:
        """Whether the journal or a witness tells of it; else all there is is a witness that cannot be believed."""
        return self.ledger.exists or self.ledger.broken is not None or self.witness is not None

    @property
    def devices(self) -> DevicePair | None:
        """The devices, as the journal has them; else as the witness has."""
        return self.ledger.devices or (self.witness.devices if self.witness is not None else None)

    @property
    def why_closed(self) -> str:
        """What the host says."""
        return self._closed.message if self._closed is not None else self.waits_because

    @property
    def warnings(self) -> tuple[str, ...]:
        """That the journal cannot be read, and what the host that has it open warns of."""
        views = self.status.migrations if self.status is not None else ()
        of_host = next((each.warnings for each in views if each.name == self.ledger.migration), ())
        return (self.unread, *of_host) if self.unread else of_host

    @property
    def _closed(self) -> ClosedView | None:
        name, closed = self.ledger.migration, self.status.closed if self.status is not None else ()
        return next((each for each in closed if each.name == name), None)

    @property
    def given_away(self) -> GivenAway | None:
        """Which host has it by a word that the journal lacks, as the one that was asked has in mind."""
        noted = self.examined.given_away if self.examined is not None else ()
        return next(
            (
                each
                for each in noted
                if each.uuid == self.uuid and is_from_before(each, self.ledger, self.host)
            ),
            None,
        )

    @property
    def doubt(self) -> str:
        """Why the witness does not count as the newest; empty when it does."""
        if self.examined is None:
            return _NOT_EXAMINED[self.standing]
        if (given := self.given_away) is not None:
            return f"host {given.host!r} has had it since, by a word that the journal lacks"
        if self.witness is None:
            return self.examined.unreadable or "there is none"
        return self._doubt_of(self.witness)

    def _doubt_of(self, witness: WitnessView) -> str:
        ledger = self.ledger
        if self._is_from_before_it_was_given:
            return f"by the journal, which has gone back, host {ledger.host!r} has it: it may have been given on since"
        if witness.host != self.host or (ledger.exists and ledger.host != self.host):
            return f"it is of host {witness.host!r}"
        if ledger.exists and witness.uuid != ledger.uuid:
            return f"it is of a migration with the UUID {witness.uuid}"
        if witness.opened_run is None or witness.opened_run > witness.run:
            return "it is, or may be, an old copy"
        if any(not each.operation_id.startswith(STARTUPS_OWN) for each in self._decisions_after(witness)):
            return f"it is older: of decision {witness.decision}"
        if self._is_contradicted():
            return f"the journal tells otherwise of decision {witness.decision}"
        return "what the journal holds besides is not known" if self.unread else ""

    @property
    def is_proved(self) -> bool:
        """Whether the newest witness is there: then nothing was decided that is not known."""
        return not self.doubt

    @property
    def held(self) -> Held:
        """Who holds every acknowledged write, by all that is known."""
        journal, witness = self._held_by_journal(), self._held_by_witness()
        if self.is_proved and witness is not None:
            return journal if journal is not None and self._journal_leads() else witness
        if self.given_away is not None or self._is_contradicted():
            return Held.DISPUTED
        if self.unread:
            return witness or Held.DISPUTED
        if self.ledger.commit_intended or journal is None:
            return Held.DISPUTED
        if witness is not None and (witness is Held.TARGET) != (journal is Held.TARGET):
            return Held.DISPUTED
        return witness if witness is not None and self._is_from_before_it_was_given else journal

    @property
    def known(self) -> Known:
        """What the tables of choices are asked with."""
        return Known(
            standing=self.standing,
            held=self.held,
            proved=self.is_proved,
            remote=self.remote,
            in_doubt=self.remote if self._waits_for_word else frozenset(),
            unusable=self._unusable,
        )

    def refuse_unusable(self, side: Side) -> None:
        """Refuse a side that the host that was asked cannot open.

        Raises:
            Refusal: with the code of what is wrong with it; `not-allowed` where nobody knows which device it is.
        """
        finding = self._finding(side)
        if finding is None:
            raise Refusal(Code.NOT_ALLOWED, f"{self._unknown_devices}.")
        if not finding.usable:
            raise Refusal(Code(finding.code), finding.message)

    @property
    def _unusable(self) -> dict[Side, str]:
        if self.examined is None:
            return {}  # nobody could look
        found = {side: self._finding(side) for side in Side}
        return {
            side: self._unknown_devices if finding is None else finding.message.removesuffix(".")
            for side, finding in found.items()
            if finding is None or not finding.usable
        }

    def _finding(self, side: Side) -> Finding | None:
        if self.examined is None:
            return None
        return self.examined.source if side is Side.SOURCE else self.examined.target

    @property
    def _unknown_devices(self) -> str:
        return f"Which devices {self.ledger.migration!r} had is not known any more"

    @property
    def remote(self) -> frozenset[Side]:
        """The sides that are remote devices, or may be: where nobody tells which devices it had."""
        return frozenset(self.devices.remote_sides if self.devices is not None else Side)

    @property
    def _waits_for_word(self) -> bool:
        closed = self._closed
        return closed is not None and closed.code == Code.OUTSTANDING_REQUESTS

    def tellings(self) -> tuple[Telling, ...]:
        """Journal and witness, each in its own words."""
        return (self._journal(), self._witness())

    def _journal(self) -> Telling:
        ledger = self.ledger
        return Telling(
            by="journal",
            state=ledger.state,
            authority=ledger.authority if ledger.exists else None,
            attempt=ledger.attempt if ledger.exists else None,
            decision=ledger.decision if ledger.exists else None,
            flag=ledger.flag if ledger.exists else None,
            source_faults=ledger.fault_count(Side.SOURCE),
            target_faults=ledger.fault_count(Side.TARGET),
            last_at=ledger.entries[-1].record.recorded_at if ledger.entries else None,
            doubt=self._journal_doubt(),
        )

    def _journal_doubt(self) -> str:
        ledger, witness = self.ledger, self.witness
        if self.unread:
            return "it cannot be read: see the warning"
        if ledger.broken is not None:
            return f"it is damaged: {ledger.broken}"
        if not ledger.exists:
            return "it does not know the migration"
        if (given := self.given_away) is not None:
            return f"it has gone back: it lacks the word by which host {given.host!r} has it"
        if self._is_from_before_it_was_given or (
            not self.doubt and witness is not None and not ledger.contains(witness.tail_digest)
        ):
            return "it has gone back: it lacks a record that the host relied on"
        return (
            "a commit was asked for, and what became of it is not recorded" if ledger.commit_intended else ""
        )

    def _witness(self) -> Telling:
        witness = self.witness
        if witness is None:
            return Telling(by="witness", doubt=self.doubt)
        return Telling(
            by="witness",
            state=witness.state,
            authority=witness.authority,
            attempt=witness.attempt,
            decision=witness.decision,
            source_faults=sum(fault.side is Side.SOURCE for fault in witness.faults),
            target_faults=sum(fault.side is Side.TARGET for fault in witness.faults),
            doubt=self.doubt,
        )

    def _journal_leads(self) -> bool:
        """Whether the journal is whole, has what the host relied on, and everything that it decided."""
        ledger, witness = self.ledger, self.witness
        return (
            witness is not None
            and ledger.broken is None
            and ledger.contains(witness.tail_digest)
            and ledger.decision >= witness.decision
        )

    @property
    def _is_from_before_it_was_given(self) -> bool:
        """Whether the journal names another host, and lacks what the witness of the one that was asked relied on."""
        ledger, witness = self.ledger, self.witness
        return (
            witness is not None
            and (witness.uuid, witness.host) == (ledger.uuid, self.host)
            and ledger.host != self.host
            and witness.decision > ledger.decision
            and not ledger.contains(witness.tail_digest)
        )

    def _is_contradicted(self) -> bool:
        """Whether the journal, whole as it is, holds another decision under the number of the witness's own."""
        ledger, witness = self.ledger, self.witness
        return (
            witness is not None
            and self._journal_leads()
            and (ledger.uuid, ledger.decision) == (witness.uuid, witness.decision)
            and (ledger.state, ledger.authority, ledger.attempt)
            != (witness.state, witness.authority, witness.attempt)
        )

    def _held_by_journal(self) -> Held | None:
        ledger = self.ledger
        if not ledger.exists:
            return None
        return held_by(
            state=ledger.state,
            authority=ledger.authority,
            attempt=ledger.attempt,
            flag=ledger.flag,
            target_fault=ledger.fault_count(Side.TARGET) > 0 or self._witness_knows_target_fault(),
            ever_flagged=ledger.flag is not Flag.NEVER,
        )

    def _witness_knows_target_fault(self) -> bool:
        """Of the journal's attempt; it may never have come that far."""
        witness, ledger = self.witness, self.ledger
        return (
            witness is not None
            and (witness.uuid, witness.attempt) == (ledger.uuid, ledger.attempt)
            and any(fault.side is Side.TARGET for fault in witness.faults)
        )

    def _held_by_witness(self) -> Held | None:
        witness = self.witness
        if witness is None or (self.ledger.exists and witness.uuid != self.ledger.uuid):
            return None
        return held_by(
            state=witness.state,
            authority=witness.authority,
            attempt=witness.attempt,
            flag=Flag.SET,  # whether it was cleared stands in the journal alone
            target_fault=any(fault.side is Side.TARGET for fault in witness.faults),
            ever_flagged=witness.attempt > 0,
        )

    def _decisions_after(self, witness: WitnessView) -> list[StateRecord | RepairRecord]:
        return [
            entry.record
            for entry in self.ledger.entries
            if isinstance(entry.record, StateRecord | RepairRecord)
            and entry.record.uuid == witness.uuid
            and entry.record.decision > witness.decision
        ]
