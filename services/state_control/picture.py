"""One migration as the journal and its host tell it together. Where the host has decided more, the host is right."""

from dataclasses import dataclass, replace

from shared.bus.interface import Journal
from shared.messages.host import ClosedView, HostStatusReply, doubt_of
from shared.messages.standing import gone_back
from shared.messages.status import HostView
from shared.migration.condition import JournalCondition
from shared.migration.devices import Side
from shared.migration.ledger import Ledger
from shared.migration.records import FaultRecord
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from shared.migration.table import Facts, with_faults


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What is known of a migration right now. `view` is None where its host has it closed, or does not answer."""

    ledger: Ledger
    run: int
    has_gone_back: bool = False  # the journal lacks what the host relied on, even when it is read again
    view: HostView | None = None
    closed: ClosedView | None = None
    host_error: str | None = None
    host_warnings: tuple[str, ...] = ()

    @property
    def leading_view(self) -> HostView | None:
        """The host's view, where it is at least as new as the journal."""
        view = self.view
        is_leading = view is not None and view.decision >= self.ledger.decision
        return view if is_leading else None

    @property
    def state(self) -> State | None:
        """The state that was decided last."""
        return view.state if (view := self.leading_view) else self.ledger.state

    @property
    def authority(self) -> Side:
        """The side that holds every acknowledged write."""
        return view.authority if (view := self.leading_view) else self.ledger.authority

    @property
    def attempt(self) -> int:
        """The attempt that was begun last."""
        return view.attempt if (view := self.leading_view) else self.ledger.attempt

    @property
    def is_behind(self) -> bool:
        """Whether the journal, as it was read, lacks what the host relied on: it was read too early, or has gone back."""
        lacks_tail = self.view is not None and not self.ledger.contains(self.view.tail_digest)
        return self._has_another or lacks_tail

    @property
    def _has_another(self) -> bool:
        """Whether what the host has under this name is another migration than the journal's."""
        return self.closed is not None and self.closed.uuid not in {None, self.ledger.uuid}

    @property
    def is_of_earlier_run(self) -> bool:
        """Whether the journal gives it to a later run than the one that has it open."""
        return self.view is not None and self.view.run < self.ledger.run

    @property
    def journal_condition(self) -> JournalCondition:
        """How the journal is to the host."""
        if self.ledger.broken is not None:
            return JournalCondition.DAMAGED
        if self._has_another:
            return JournalCondition.ANOTHER
        if self.is_of_earlier_run:
            return JournalCondition.LATER_RUN
        return JournalCondition.GONE_BACK if self.has_gone_back else JournalCondition.SOUND

    def refuse_gone_back(self) -> None:
        """Refuse to ask for anything on a journal that is not what the host relied on.

        Raises:
            Refusal: `journal-unsound`.
        """
        if self.has_gone_back:
            raise gone_back(self.ledger.migration, f"host {self.ledger.host!r}")

    @property
    def is_recorded(self) -> bool:
        """Whether the journal holds everything that the host has decided."""
        view = self.view
        return view is None or (view.decision == self.ledger.decision and not view.journal_pending)

    def faults(self) -> tuple[FaultRecord, ...]:
        """The recorded faults of the attempt that was begun last."""
        return tuple(fault for fault in self.ledger.all_faults if fault.attempt == self.attempt)

    @property
    def facts(self) -> Facts:
        """What the state table decides on."""
        pending = self.view.pending_faults if self.view else ()
        is_recorded = self.attempt == self.ledger.attempt
        facts = self.ledger.facts if is_recorded else Facts(state=None, flag=self.ledger.flag)
        return replace(with_faults(facts, pending), state=self.state, authority=self.authority)

    @property
    def doubt(self) -> str | None:
        """What a word about old connections would be given for; None where nobody can be given one."""
        if self.view is not None:
            return self.view.doubt
        return doubt_of(self.closed.uuid or "", self.run) if self.closed is not None else None

    def require_open(self) -> HostView:
        """The host's view of a migration that it has open.

        Raises:
            Refusal: (`not-admitted`) it has not.
        """
        if self.view is not None:
            return self.view
        name, host = self.ledger.migration, self.ledger.host
        if self.closed is not None:
            raise Refusal(Code.NOT_ADMITTED, f"Host {host!r} keeps {name!r} closed: {self.closed.message}")
        raise Refusal(Code.NOT_ADMITTED, f"Host {host!r} does not have {name!r} open.")


_ANOTHER = (
    "it has another migration of that name open, of the UUID {}. The journal is not the one that this host relies on; "
    "application I/O goes on. Bring its journal back."
)


def picture_of(ledger: Ledger, status: HostStatusReply) -> Picture:
    """Join what the journal records with what the host says."""
    name, uuid = ledger.migration, ledger.uuid
    view = next((view for view in status.migrations if view.name == name), None)
    is_another = view is not None and view.uuid != uuid
    closed = next((closed for closed in status.closed if closed.name == name), None)
    if view is not None and is_another:
        closed = ClosedView(
            name=name, uuid=view.uuid, code=Code.JOURNAL_UNSOUND, message=_ANOTHER.format(view.uuid)
        )
    return Picture(
        ledger=ledger,
        run=max(ledger.run, status.run),
        view=None if is_another else view,
        closed=closed,
        host_warnings=_warnings_of(name, status),
    )


def _warnings_of(name: str, status: HostStatusReply) -> tuple[str, ...]:
    """The host's warnings, without those that are of another of its migrations alone."""
    of_others = {warning for view in status.migrations if view.name != name for warning in view.warnings}
    own = {warning for view in status.migrations if view.name == name for warning in view.warnings}
    return tuple(warning for warning in status.warnings if warning in own or warning not in of_others)


async def current_picture(journal: Journal, ledger: Ledger, status: HostStatusReply) -> Picture:
    """The same, with the journal read again where the host is ahead of it: the host may just have recorded something.

    Raises:
        Refusal: `journal-away`…
    """
    picture = picture_of(ledger, status)
    if not picture.is_behind:
        return picture
    fresh = await journal.read(ledger.migration)
    if not fresh.exists:
        return picture
    picture = picture_of(fresh, status)
    return replace(picture, has_gone_back=picture.view is not None and picture.is_behind)


def picture_without_host(ledger: Ledger, why: str) -> Picture:
    """What the journal alone tells, and why the host does not."""
    return Picture(ledger=ledger, run=ledger.run, host_error=why)


def require_existing(ledger: Ledger) -> None:
    """Refuse a name that no migration has.

    Raises:
        Refusal: `unknown-migration`; `journal-unsound` when the journal is too damaged to tell.
    """
    if ledger.exists and ledger.devices is not None and ledger.state is not None:
        return
    if ledger.broken is not None:
        raise Refusal(
            Code.JOURNAL_UNSOUND, f"The journal of {ledger.migration!r} is damaged: {ledger.broken}."
        )
    raise Refusal(Code.UNKNOWN_MIGRATION, f"There is no migration {ledger.migration!r}.")
