"""One command at a time for each migration. Who comes second is told at once: what it asked for may not fit by then."""

from collections.abc import Iterator
from contextlib import contextmanager

from shared.migration.refusals import Code, Refusal


class Turns:
    """Which command each migration is busy with, in this process. Between replicas, the journal and the host decide."""

    def __init__(self) -> None:
        self._under_way: dict[str, str] = {}

    @contextmanager
    def take(self, migration: str, command: str) -> Iterator[None]:
        """Hold the migration's turn for as long as the context is open.

        Raises:
            Refusal: (`busy`) naming the command that holds it.
        """
        if (other := self._under_way.get(migration)) is not None:
            raise Refusal(Code.BUSY, f"{command} of {migration!r} is refused: {other} is under way.")
        self._under_way[migration] = command
        try:
            yield
        finally:
            del self._under_way[migration]
