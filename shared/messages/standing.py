"""Whether who asks for a record still speaks for the migration: pure, and the same for both owners of the journal."""

from shared.messages.admission import GivenAway
from shared.messages.recording import Origin
from shared.messages.status import JournalWait
from shared.migration.ledger import Ledger
from shared.migration.records import ADOPTED, StateRecord
from shared.migration.refusals import Code, Refusal

STARTUPS_OWN = (
    "startup:"  # what the ids of the operations begin with that startup asks for, and of nobody else's
)


def refuse_mislabelled(host: str, migration: str, origin: Origin) -> None:
    """Refuse a request of another host or migration than its subject's, by which the server has let it through.

    Raises:
        Refusal: `bad-request` saying of which.
    """
    if migration != origin.migration:
        raise Refusal(
            Code.BAD_REQUEST, f"The subject is of {migration!r}, and the request of {origin.migration!r}."
        )
    if host != origin.host:
        raise Refusal(
            Code.BAD_REQUEST, f"The subject is of host {host!r}, and the request of host {origin.host!r}."
        )


def refuse_unsound(ledger: Ledger) -> None:
    """Refuse to build on a chain that is not whole.

    Raises:
        Refusal: `journal-unsound`.
    """
    if ledger.broken is not None:
        raise Refusal(
            Code.JOURNAL_UNSOUND,
            f"The journal of {ledger.migration!r} is damaged: {ledger.broken}. Restarting its host has it repaired.",
        )


def refuse_gone_back(origin: Origin, ledger: Ledger) -> None:
    """Refuse to build on a chain that lacks what the asker relied on, however whole it looks.

    Raises:
        Refusal: `journal-unsound`.
    """
    if not ledger.contains(origin.relies_on):
        raise gone_back(origin.migration, f"host {origin.host!r}")


def gone_back(migration: str, who: str) -> Refusal:
    """The refusal of a journal that lacks a record that somebody relied on."""
    return Refusal(
        Code.JOURNAL_UNSOUND,
        f"The journal of {migration!r} has gone back: it lacks a record that {who} relied on. Application I/O goes on, and "
        "nothing is recorded before the host is restarted, which has the journal repaired.",
    )


def gone_back_to_another(ledger: Ledger, host: str) -> Refusal:
    """The same of one that is from before the host was given the migration: to restart that repairs nothing."""
    name = ledger.migration
    return Refusal(
        Code.JOURNAL_UNSOUND,
        f"The journal of {name!r} has gone back to where host {ledger.host!r} has it: it lacks a record that host {host!r} "
        "relied on. Application I/O goes on, and nothing is recorded. Bring the newer journal back; a restart of the host "
        f"would keep the volume closed until `cutover adopt {name} --host {host}`.",
    )


def later_run(migration: str, host: str, run: int, later: int) -> str:
    """The sentences about a volume that a run of a host has open and the journal gives to a later run of that name."""
    return (
        f"Run {run} of host {host!r} still has {migration!r} open, and the journal gives it to run {later}: two processes of one "
        "name may write to its devices. The earlier one closes it when it looks at the journal; where it does not, end it."
    )


def untold(migration: str, wait: JournalWait) -> str:
    """The sentences about what the journal is yet to be told by a host."""
    why = wait.why or "it has not answered so far."
    return f"The journal does not hold all of {migration!r}, since {wait.since}: {wait.what}. What keeps it: {why}"


def refuse_stale(origin: Origin, ledger: Ledger) -> None:
    """Refuse whoever speaks of another migration of the name, of one that is another host's, or from the past.

    It is the host's that its last record is of. That is the first one's, which set it up, until an operator's word, which
    no host can record, gives it to another: every record that is asked for is held against this.

    Raises:
        Refusal: `unknown-migration`, or `stale` saying in what.
    """
    if ledger.uuid is None:
        raise Refusal(Code.UNKNOWN_MIGRATION, f"There is no migration {origin.migration!r}.")
    if origin.host != ledger.host:
        raise Refusal(
            Code.STALE,
            f"The request for {origin.migration!r} is of host {origin.host!r}, and by the journal the migration belongs to "
            f"host {ledger.host!r}.",
        )
    outdated = (
        ("UUID", origin.uuid, ledger.uuid, origin.uuid != ledger.uuid),
        ("run", origin.run, ledger.run, origin.run < ledger.run),
        ("decision", origin.decision, ledger.decision, origin.decision < ledger.decision),
    )
    for what, asked, recorded, is_outdated in outdated:
        if is_outdated:
            raise stale(
                origin.migration, f"it is of {what} {asked}, and the journal records {what} {recorded}"
            )


def refuse_older_attempt(migration: str, attempt: int, ledger: Ledger) -> None:
    """Refuse what belongs to an attempt that is over.

    Raises:
        Refusal: `stale`.
    """
    if attempt < ledger.attempt:
        raise stale(
            migration, f"it is of attempt {attempt}, and the journal records attempt {ledger.attempt}"
        )


def refuse_judged_before(origin: Origin, operation_id: str, ledger: Ledger) -> None:
    """Refuse what startup asks for where anything was recorded since it judged.

    It speaks for a host that does not run. Where another startup has admitted that host meanwhile, it may run by now, and have
    decided what this one knows nothing of.

    Raises:
        Refusal: `stale`.
    """
    if operation_id.startswith(STARTUPS_OWN) and origin.relies_on != ledger.tail.digest:
        raise stale(origin.migration, "something was recorded since startup judged")


def given_away(ledger: Ledger, host: str) -> GivenAway | None:
    """That another host than this has the migration, and since which record; None where that is not so."""
    since = None
    for entry in reversed(ledger.entries):
        if entry.record.uuid != ledger.uuid or entry.record.host == host:
            break
        since = entry
    if since is None or ledger.uuid is None:
        return None
    return GivenAway(
        migration=ledger.migration,
        uuid=ledger.uuid,
        host=ledger.host,
        digest=since.digest,
        decision=since.record.decision,
    )


def is_from_before(given: GivenAway, ledger: Ledger, host: str) -> bool:
    """Whether a journal knows nothing of what a host has in mind: that it has the migration no more.

    An operator may give it back by an older journal, too. Such a word knows of that, and is numbered above it.
    """
    return not ledger.contains(given.digest) and not any(
        isinstance(entry.record, StateRecord)
        and entry.record.trigger == ADOPTED
        and (entry.record.uuid, entry.record.host) == (given.uuid, host)
        and entry.record.decision > given.decision
        for entry in ledger.entries
    )


def stale(migration: str, why: str) -> Refusal:
    """The refusal of something that comes too late."""
    return Refusal(Code.STALE, f"The request for {migration!r} is out of date: {why}.")
