"""The simulation: one seed is one life of a whole system, with everything that can happen to it.

What runs is the product: the state table and the verdicts, the host with its decision point, executor, witness, reporter, copier
and volume, state_control, fault_recording and startup. What is simulated is what lies below: two disks, the state directory, the
NATS server and its network, and the event loop with its clock.

The fault model. Allowed, at any moment, in any combination that a seed draws:

- a process is killed between any two steps of it: the host or any service. Nothing is unwound. Requests that a device
  has are done, or not, or in part (by sectors), before anyone can open it again: the kernel holds the lock until then;
- the power goes everywhere at one instant. A disk keeps what a successful flush covered, that is the writes that were done
  before it began; of the rest each sector keeps any of its later values, or none. A file that was replaced is the old or
  the new one until its directory is synced. A map that is written in place is written in part. A NATS server that syncs
  keeps what it acknowledged; one that does not keeps any beginning;
- both again during the recovery, up to ten deep; and again after a clean stop;
- devices do requests in any order, slowly, fail them (EIO, ENOSPC, in part), hang and go on, fail one flush, be it that of
  a durable write, and forget some of what was cached; the target is missing;
- the cache of a device cannot write back, in a fifth of the seeds: it gives the old data to whoever reads, and tells of that by
  the next flush or durable write alone, whoever asks for it; but not between the flush for a decision and the decision;
- a witness or a map cannot be written, and the old or the new one is then on disk;
- requests and answers on the bus are lost, late, or come twice; publishes are lost, stored unacknowledged, or stored
  late; the server goes away and comes back;
- the journal is replaced by an old copy, or has a hole, while the host runs or not; the witness is lost or damaged, with
  the journal intact; or it is lost, and the journal forged; somebody reports a fault of the target while the host is down;
- source, target or both stand in servers, which keep no lock, in a quarter of the seeds. What changes a device and was under way
  when its connection broke, or when the process that had it died, lands at any later time, in any order, in part, until
  somebody at the server sees to it that the old connection is gone; then what is left lands, in part or not, and nothing ever
  after. A server loses its power, alone or with everything else, or keeps it, and its cache, while everything else does not;
- the operator of such devices gives the word (`vouch`) when one is due, often late, and now and then when none is, each time
  after seeing to it at the servers; in half of those seeds words come late, or again, often;
- where the witness is lost, some adopt instead of finding it, and name the right side; or give the migration up, and set
  its data up anew after seeing to it at the servers.

Not allowed, because nothing could survive it or because it is another test's business:

- a sector that is torn within, bytes that change by themselves, a disk that lies about flushes (the positive control
  does that, and must be found out), a state directory that goes back (startup refuses it, by the runs on record);
- journal and witness damaged together, nor a journal put back from before a clean-up; one that lost the end of a clean-up in a
  power cut opens nothing again;
- an operator who lies: who vouches for a connection that is not gone, or adopts the side that is not right; nor one who sets up
  a device anew that somebody else may still write to, or has a set-up on its way that names as source what the data has left;
- a server that loses what it has made durable, does a request of a connection that stands twice, or has another program at
  the same export;
- two hosts, several migrations at once, NBD and its clients.

What is held against it: `model` (what the application may see), `rules` (what may be seen to be done), and at the end
rest: without trouble everything settles, the host stops, and what was acknowledged survives a last power cut.
"""

import gc
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random

from shared.bus import chain
from shared.bus.chain import Stored
from shared.migration.ledger import Ledger
from tests.simulation.loop import SimulatedLoop, StuckError
from tests.simulation.world import Tell, World


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a seed."""

    seed: int
    wrong: str = ""
    digest: str = ""
    steps: int = 0
    virtual_s: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)


def run(seed: int, tell: Tell | None = None, *, is_honest: bool = True) -> Outcome:
    """One life. `tell` hears of everything; with `is_honest` false, flushes do nothing."""
    with _quiet(tell), _reading_once():
        return _run(seed, tell, is_honest=is_honest)


def _run(seed: int, tell: Tell | None, *, is_honest: bool) -> Outcome:
    loop = SimulatedLoop(Random(f"{seed}:loop"))
    world = World(seed, loop, tell, is_honest=is_honest)
    try:
        loop.run_until_complete(world.live())
    except StuckError as stuck:
        world.violated(stuck)
    outcome = Outcome(
        seed=seed,
        wrong=_told(world.wrong),
        digest=world.digest(),
        steps=loop.steps,
        virtual_s=loop.time(),
        counts=world.counts,
    )
    loop.bury()
    return outcome


def _told(wrong: BaseException | None) -> str:
    while isinstance(wrong, BaseExceptionGroup):
        wrong = wrong.exceptions[0]
    return "" if wrong is None else f"{type(wrong).__name__}: {wrong}"


@contextmanager
def _quiet(tell: Tell | None) -> Iterator[None]:
    """No log but in a replay, and no collector at odd moments."""
    if tell is None:
        logging.disable(logging.CRITICAL)
    gc.disable()
    try:
        with warnings.catch_warnings():
            # Who was cancelled before he began is of those whom the end of the world met.
            warnings.filterwarnings("ignore", message="coroutine .* was never awaited")
            yield
            gc.collect()
    finally:
        gc.enable()
        logging.disable(logging.NOTSET)


@contextmanager
def _reading_once() -> Iterator[None]:
    """The same journal is the same ledger, and the same bytes at the same place the same entry: reading it anew costs less."""
    entry, ledger = chain._entry, chain._ledger
    ledgers: dict[object, Ledger] = {}

    def remembered(migration: str, stored: Sequence[Stored]) -> Ledger:
        key = (migration, *[(message.sequence, message.payload) for message in stored])
        found = ledgers.get(key)
        if found is None:
            found = ledgers[key] = ledger(migration, stored)
        return found

    setattr(chain, "_entry", lru_cache(maxsize=4096)(entry))  # noqa: B010 # they are not the chain's to give away
    setattr(chain, "_ledger", remembered)  # noqa: B010
    try:
        yield
    finally:
        setattr(chain, "_entry", entry)  # noqa: B010
        setattr(chain, "_ledger", ledger)  # noqa: B010
