"""On which flag cloning may be entered: the part of the decision point that `enter` is about.

The journal is looked at before the request's turn comes, since decisions never wait for NATS; what was seen there is judged
in the turn.
"""

from collections import deque
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager

from services.write_cloning.executor import Decision
from services.write_cloning.keeper import Keeper
from services.write_cloning.reporter import Reporter
from shared.messages.host import EnterRequest
from shared.messages.standing import untold
from shared.migration.ledger import Ledger
from shared.migration.refusals import Code, Refusal
from shared.migration.states import Flag
from shared.migration.table import Facts, Trigger, decide

# Whoever is refused has the flag cleared, and that may be under way when the same request comes again. Of another run's nothing
# is left: startup clears a flag that it finds in `setup`.
REFUSED_FLAGS_MAX = 64


class Entering:
    """That of one migration."""

    def __init__(self, keeper: Keeper, reporter: Reporter) -> None:
        """Begin with nobody who enters."""
        self._keeper = keeper
        self._reporter = reporter
        self._under_way = 0
        self._refused_flags: deque[str] = deque(maxlen=REFUSED_FLAGS_MAX)

    @property
    def is_under_way(self) -> bool:
        """Whether someone who has looked at the flag is about to enter: another flag would come too late for that look."""
        return self._under_way > 0

    async def look(self, request: EnterRequest, looking: Awaitable[Ledger]) -> Ledger:
        """Begin to enter. Unless this raises, what is judged on the ledger is judged within `turn`."""
        self._under_way += 1
        try:
            return await looking
        except BaseException as trouble:
            self._under_way -= 1
            if isinstance(trouble, Refusal):
                self._refused_flags.append(request.flag_digest)
            raise

    @contextmanager
    def turn(self, request: EnterRequest) -> Iterator[None]:
        """The end of what `look` has begun. A flag that is refused in it is not entered on later."""
        try:
            yield
        except Refusal:
            self._refused_flags.append(request.flag_digest)
            raise
        finally:
            self._under_way -= 1

    def decision(self, request: EnterRequest, ledger: Ledger) -> Decision:
        """What is to be carried out.

        Raises:
            Refusal: the flag is not the last record of its kind or is spent, the attempt is not the next one, or the table
                does not allow it.
        """
        witness = self._keeper.witness
        # A clear that is still to come would take this flag for the one it is about.
        if (wait := self._reporter.waiting) is not None:
            raise Refusal(Code.BUSY, untold(witness.migration, wait))
        flag = ledger.flag_entry
        if flag is None or ledger.flag is not Flag.SET or flag.digest != request.flag_digest:
            raise Refusal(
                Code.STALE, f"The flag named for {witness.migration} is not the last one in the journal."
            )
        if flag.digest == witness.spent_flag_digest or flag.digest in self._refused_flags:
            raise Refusal(
                Code.STALE, f"The flag named for {witness.migration} was to be cleared; set a new one."
            )
        row = decide(Facts(state=witness.state, authority=witness.authority, flag=Flag.SET), Trigger.SYNC)
        if request.attempt != witness.attempt + 1:
            raise Refusal(Code.STALE, f"Attempt {witness.attempt + 1} of {witness.migration} is next.")
        return Decision(
            row=row,
            operation_id=request.operation_id,
            attempt=request.attempt,
            flag_digest=flag.digest,
            tail_digest=ledger.tail.digest,
        )
