"""CloudEvents 1.0 in NATS's binary mode: headers by which tools that know nothing of Cutover can route its messages.

See the CloudEvents specification and its NATS protocol binding. The payload is the data, untouched; nothing in Cutover
reads these headers.
"""

from urllib.parse import quote

from shared.messages.channels import channel_of
from shared.migration.records import AnyRecord

_SPECIFICATION = "1.0"
_TYPE_PREFIX = "io.cutover"
_UNENCODED = "".join(map(chr, range(0x21, 0x7F))).replace('"', "").replace("%", "")


def record_headers(record: AnyRecord) -> dict[str, str]:
    """Of a record of the journal. Its place in the chain of its UUID makes it unique."""
    return _headers(
        identifier=f"{record.uuid}/{record.index}",
        source=f"/cutover/hosts/{record.host}",
        kind=f"{_TYPE_PREFIX}.journal.{record.kind}.v{record.version}",
        at=record.recorded_at,
        subject=record.migration,
    )


def event_headers(*, identifier: str, source: str, nats_subject: str, at: str) -> dict[str, str]:
    """Of anything else that is told or asked. Its type is the subject's, without the names; the migration is its subject."""
    found = channel_of(nats_subject)
    if found is None:  # none of the documented ones: the first word is all that is known of it
        _, _, rest = nats_subject.partition(".")
        topic, _, about = rest.partition(".")
    else:
        channel, names = found
        topic, about = channel.topic, names.get("migration") or names.get("host", "")
    return _headers(
        identifier=identifier, source=source, kind=f"{_TYPE_PREFIX}.{topic}.v1", at=at, subject=about
    )


def _headers(*, identifier: str, source: str, kind: str, at: str, subject: str) -> dict[str, str]:
    headers = {
        "ce-specversion": _SPECIFICATION,
        "ce-id": identifier,
        "ce-source": source,
        "ce-type": kind,
        "ce-time": at,
        "content-type": "application/json",
    }
    headers |= {"ce-subject": subject} if subject else {}
    return {name: _encoded(value) for name, value in headers.items()}


def _encoded(value: str) -> str:
    """As the binding has it: what is no plain letter becomes `%XX`, so that no value ends a header and begins another."""
    return quote(value, safe=_UNENCODED, errors="backslashreplace")
