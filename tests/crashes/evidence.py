"""What must hold after a crash, told from what is on the disk, in the journal and behind the export."""

import json
from dataclasses import dataclass

from tests.acceptance.system.plain_client import Json, Recorded, Refused
from tests.crashes.cases import CLONES
from tests.crashes.machine import Machine


@dataclass(frozen=True, slots=True)
class Decided:
    """What the host's witness says that it has decided."""

    state: str | None  # None: it is removed, or never was
    authority: str = "source"
    attempt: int = 0


def decided(machine: Machine, name: str) -> Decided:
    """As it stands on the disk; the host may be dead."""
    path = machine.witness(name)
    if not path.exists():
        return Decided(None)
    witness = json.loads(path.read_bytes())["witness"]
    return Decided(witness["state"], witness["authority"], witness["attempt"])


def after_unclean_stop(before: Decided) -> Decided:
    """What startup must make of an unclean stop: cloning ends; what only one side has is as it was."""
    if before.state in CLONES and before.authority == "source":
        return Decided("setup", "source", before.attempt)
    return before


def settled(machine: Machine, name: str) -> Json | None:
    """The answer to `query` once the journal holds everything; None when there is no such migration."""
    try:
        return machine.client.until(
            name,
            lambda status: not status["journal_pending"] and status["host_answers"],
            what="a state that the journal holds",
        )
    except Refused as refusal:
        if refusal.code != "unknown-migration":
            raise
        return None


def check_verdict(machine: Machine, name: str, before: Decided, *, has_host_died: bool) -> None:
    """Hold what startup has made of it, and what the host goes on with, against what was decided before."""
    status = settled(machine, name)
    now = decided(machine, name)
    if status is None:
        assert before.state in {None, "setup"}
        return
    assert (status["state"], status["authority"], status["attempt"]) == (
        now.state,
        now.authority,
        now.attempt,
    )
    causes = [(fault["side"], fault["cause"]) for fault in status["faults"]]
    if has_host_died:
        assert now == after_unclean_stop(before) or before.state is None
        expected = [("target", "unclean-shutdown")] if before.state in CLONES else []
        assert causes == expected or now.state == "committed"
        if now.state in {"setup", "committed"}:
            assert not status["error_flag"]
    else:
        assert causes == []


def unlawful(journal: list[Recorded]) -> list[str]:
    """Records that no order of events may bring about."""
    found: list[str] = []
    faulted: set[tuple[str, int]] = set()
    flagged = False
    authority = "source"
    for each in journal:
        record = each.record
        attempt = record["uuid"], record["attempt"]
        match record["kind"]:
            case "fault" if record["side"] == "target" and authority == "source":
                faulted.add(attempt)
            case "flag-set":
                flagged = True
            case "flag-clear":
                flagged = False
            case "state":
                if (
                    record["state"] in {"committed", "source-selected", "target-selected"}
                    and attempt in faulted
                ):
                    found.append(f"{record['state']} over a faulted target: {record}")
                if record["state"] in CLONES and not flagged:
                    found.append(f"{record['state']} without the flag: {record}")
                authority = record["authority"]
            case _:
                pass
    return found
