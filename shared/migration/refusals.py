"""The one way in which Cutover says no: a stable code for programs, a sentence for people, and what is allowed instead."""

from collections.abc import Iterable
from enum import StrEnum


class Code(StrEnum):
    """Stable codes of refusals. A code is never renamed and never reused; new ones are added at the end of their group."""

    # The request itself
    BAD_NAME = "bad-name"
    BAD_REQUEST = "bad-request"
    UNKNOWN_COMMAND = "unknown-command"
    TOO_LARGE = "too-large"
    NEWER_VERSION = "newer-version"
    # The migration
    UNKNOWN_MIGRATION = "unknown-migration"
    NAME_TAKEN = "name-taken"
    NOT_ALLOWED = "not-allowed"  # the state table does not list it, or a guard of its row fails
    STALE = "stale"  # of another UUID or host, or an older attempt, run or decision
    BUSY = "busy"  # another command on this migration is under way
    CLIENTS_CONNECTED = "clients-connected"
    OUTSTANDING_REQUESTS = "outstanding-requests"
    CONSENT_NEEDED = "consent-needed"  # it may lose something, and nobody has said that it may
    NOT_VERIFIED = "not-verified"  # a commit that wants a completed verify of the attempt
    # The devices
    DEVICE_MISSING = "device-missing"
    DEVICE_UNSUITABLE = "device-unsuitable"
    DEVICE_NOT_ALLOWED = "device-not-allowed"
    DEVICE_BUSY = "device-busy"
    DEVICE_READ_ONLY = "device-read-only"
    DEVICE_CHANGED = "device-changed"
    DEVICE_FAILED = "device-failed"
    SAME_DEVICE = "same-device"
    TARGET_TOO_SMALL = "target-too-small"
    TARGET_IN_USE = "target-in-use"  # it carries a filesystem, a partition table or another signature
    # The machinery
    HOST_UNKNOWN = "host-unknown"
    HOST_AWAY = "host-away"
    SERVICE_AWAY = "service-away"
    JOURNAL_AWAY = "journal-away"
    JOURNAL_UNSOUND = "journal-unsound"
    JOURNAL_UNSYNCED = "journal-unsynced"
    NOT_ADMITTED = "not-admitted"
    SHUTTING_DOWN = "shutting-down"
    INTERNAL = "internal"
    NOT_PERMITTED = "not-permitted"  # the NATS server does not let this user do it, or does not know the user


class Refusal(Exception):
    """A request that is answered with no. Nothing has changed, and nothing half-done stays."""

    def __init__(self, code: Code, message: str, allowed: Iterable[str] = ()) -> None:
        """Keep the three parts of the answer; `message` is a whole sentence that names the thing."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.allowed = tuple(allowed)


class InvariantError(Exception):
    """Cutover itself is wrong. The volume stops: going on could cost data."""
