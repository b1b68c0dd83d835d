"""What an earlier installation has left on a machine: witnesses of its migrations, and its journal.

Who begins beside them, in a folder that is new, begins without those migrations: their devices could be named anew, the stale
one as the source. So they are looked for where an installation of another kind would have kept them.
"""

from collections.abc import Iterator
from pathlib import Path

import orjson

WITNESSES, SUFFIX = "witnesses", ".witness"  # the folder of a state directory, and what its files end with
OF_UP = "host"  # the folder of the host that `cutover up` runs
RUN = "run"  # the file with the number of the host's run
_FILE_BYTES_MAX = 1 << 20
_NAMES_SHOWN_MAX = 5


def earlier_state(state_dir: Path, host: str) -> str:
    """Where there are migrations that a host without any state would not know, and which, as a clause; empty: nowhere.

    In the folder above, or in one of the host's name below: configurations of one host and of several differ in that. And
    beside, where `cutover up` keeps it, if it was of a host of this name.
    """
    try:
        if (state_dir / RUN).exists():
            return ""
        for place, is_ours in _places(state_dir, host):
            names = [
                file.name.removesuffix(SUFFIX)
                for file in sorted((place / WITNESSES).glob(f"*{SUFFIX}"))
                if is_ours or _host_of(file) == host
            ]
            if names:
                more = ", …" if len(names) > _NAMES_SHOWN_MAX else ""
                return f"{place} holds {', '.join(names[:_NAMES_SHOWN_MAX])}{more}"
    except OSError:
        pass  # who may not look cannot have kept anything there, or is told of it where he uses it
    return ""


def earlier_journals(store: Path, journal: str, account: str) -> tuple[str, ...]:
    """The folders of other accounts, below the store of a NATS server, that hold a journal: one of ours none of them sees."""
    try:
        found = sorted(store.glob(f"jetstream/*/streams/{journal}"))
    except OSError:
        return ()
    return tuple(str(each.parents[1]) for each in found if each.parents[1].name != account)


def _places(state_dir: Path, host: str) -> Iterator[tuple[Path, bool]]:
    """Each place, and whether whatever is there counts, or only what is of a host of our name."""
    yield state_dir.parent, True
    yield state_dir / host, True
    yield state_dir.parent / OF_UP, False


def _host_of(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            told = orjson.loads(opened.read(_FILE_BYTES_MAX))
        return str(told["witness"]["host"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""
