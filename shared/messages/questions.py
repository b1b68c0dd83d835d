"""What is asked before a command that cannot be undone, in the same words wherever it is asked. Pure."""

from shared.messages.status import MigrationStatus
from shared.migration.states import State


def commit_question(status: MigrationStatus) -> str:
    """What a commit ends for good, and what is known of the target."""
    known = (
        f"\nBoth sides were last found equal everywhere at {status.verified_at}."
        if status.verified_at is not None
        else ""
    )
    return (
        f"Commit {status.name}: {status.target} becomes the only copy that is kept up to date.\n"
        f"From that moment {status.source} misses every write, and neither abort nor select-source can bring it back."
        f"{known}"
    )


def abort_question(status: MigrationStatus) -> str:
    """What an abort throws away."""
    copied = "" if status.synced_percent is None else f", {int(status.synced_percent)} % in sync,"
    return (
        f"Abort {status.name} and go back to {status.source} alone?\n"
        f"The copy on {status.target}{copied} counts for nothing any more: another sync begins from the start."
    )


def cleanup_question(status: MigrationStatus, *, disconnect: bool) -> str:
    """What a cleanup ends, and what stays."""
    kept = status.target if status.state is State.COMMITTED else status.source
    text = f"Clean up {status.name}: its volume is closed for good and its name becomes free. {kept} keeps the data."
    if disconnect and status.connections:
        text += f"\nDisconnected on the way: {', '.join(client.peer for client in status.connections)}."
    return text


def vouch_question(name: str) -> str:
    """What an operator answers for."""
    return (
        f"Vouch that the servers of the remote devices of {name} have dropped every old connection?\n"
        "Whatever was sent over one and still lands would overwrite newer data, and nothing would tell."
    )


def after_commit(source: str) -> str:
    """What the operator has to know once a commit is done."""
    return (
        "Both devices now carry the same filesystem UUIDs and labels: detach the source "
        f"({source}) from this machine, so that nothing mounts it by mistake."
    )
