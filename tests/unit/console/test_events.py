"""Events as a line each: what is known is told in words, what is not is shown as it is."""

import pytest

from services.console.events import event_text, progress_gist, read_event


@pytest.mark.parametrize(
    ("subject", "payload", "words"),
    [
        (
            "cutover.journal.vol1.state",
            '{"kind":"state","state":"syncing","trigger":"sync","attempt":2,"authority":"source"}',
            "vol1  → syncing by sync (attempt 2)",
        ),
        (
            "cutover.journal.vol1.state",
            '{"kind":"state","state":"target-selected","trigger":"source-fault","attempt":1,"authority":"target"}',
            "authority moved to the target",
        ),
        (
            "cutover.journal.vol1.state",
            '{"kind":"tombstone","state":"committed"}',
            "cleaned up, was committed",
        ),
        ("cutover.journal.vol1.state", '{"kind":"intent","attempt":1}', "commit intended"),
        ("cutover.journal.vol1.flag", '{"kind":"flag-set","attempt":1}', "error flag set"),
        ("cutover.journal.vol1.flag", '{"kind":"flag-clear","attempt":1}', "error flag clear"),
        (
            "cutover.journal.vol1.fault.target",
            '{"kind":"fault","side":"target","state":"syncing","operation":"write","cause":"EIO","attempt":1}',
            "target fault in syncing: write, EIO (attempt 1)",
        ),
        ("cutover.control.commit.vol1", "", "vol1  command commit"),
        (
            "cutover.progress.vol1",
            '{"state":"syncing","size_bytes":1048576,"synced_bytes":524288,"rate_bytes_per_s":1024}',
            "syncing: 512 KiB of 1 MiB in sync, 1 KiB/s",
        ),
        (
            "cutover.journal.vol1.state",
            '{"kind":"of the future"}',
            'cutover.journal.vol1.state {"kind":"of the future"}',
        ),
        ("cutover.control.list", "", "cutover.control.list"),
        ("cutover.host.local.enter.vol1", '{"a":1}', 'vol1  cutover.host.local.enter.vol1 {"a":1}'),
        ("cutover.journal.vol1.state", "no json", "cutover.journal.vol1.state"),
        ("cutover.progress.vol1", "[1]", "cutover.progress.vol1 [1]"),
    ],
)
def test_event_is_told(subject: str, payload: str, words: str) -> None:
    assert words in event_text(read_event(subject, payload.encode(), "now")).plain


def test_a_long_message_is_shortened() -> None:
    line = event_text(read_event("cutover.host.a.b.c", b'{"x":"' + b"y" * 10_000 + b'"}', "now")).plain
    assert len(line) < 250


def test_progress_that_nobody_would_notice_has_the_same_gist() -> None:
    def gist(synced: int) -> object:
        payload = f'{{"state":"syncing","size_bytes":1000,"synced_bytes":{synced}}}'.encode()
        return progress_gist(read_event("cutover.progress.vol1", payload, "now"))

    assert gist(100) == gist(109)
    assert gist(100) != gist(110)
