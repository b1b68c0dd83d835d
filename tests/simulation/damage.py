"""What is done to journal and witness by others than the product: an old copy, a hole, a witness that is lost or torn.

For as long as something is damaged a volume may stay closed; it must then have been for that. What a running host cannot repair
a restart must. Journal and witness are never damaged together, and no old copy of the journal is from before a clean-up. A power
cut of a server that does not sync may lose the end of one: then the volume stays closed for good.
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from services.write_cloning.witness import _open_seal
from shared.bus.memory import Message
from shared.messages.admission import AdmissionReply, Closed
from shared.messages.codec import decode_record, encode
from shared.migration.devices import Side
from shared.migration.ledger import Entry, fold
from shared.migration.records import StateRecord, TombstoneRecord, digest_of
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from tests.simulation.operator import NAME
from tests.simulation.process import NOBODY, Process
from tests.simulation.rules import BrokenRuleError

if TYPE_CHECKING:
    from tests.simulation.world import World

_FILE = f"{NAME}.witness"
ADOPTED_CHANCE = 0.8  # of one whose authority has moved to the target, which is seldom to be had
GIVEN_UP_CHANCE = 0.15  # that a migration whose witness is lost is ended, and set up anew


class Damage:
    """What is damaged now."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._rng = random.Random(f"{world.seed}:damage")
        self._witness: bytes | None = None  # the right one
        self._messages: list[Message] | None = None  # the right ones, while there is a forgery
        self.has_journal_gone_back = False  # and no run has been admitted on it since
        self._has_lost_tombstone = False
        self.is_mended = False  # the next start will find everything as it should be
        self._started_before: Process | None = None  # and this one, which was under way, perhaps not
        self._deciding: asyncio.Task[None] | None = None
        self._is_given_up = False  # and its host may not know that yet
        self.is_final = False  # the volume is closed for good, and rightly so

    @property
    def is_any(self) -> bool:
        return self._witness is not None or self.has_journal_gone_back

    def journal(self) -> None:
        """The stream is replaced by an old copy, or loses a piece of its middle."""
        world, nats, rng = self._world, self._world.nats, self._rng
        floor = self._floor()
        length = len(nats.broker.messages)
        if floor >= length or self._witness is not None or not self._is_witness_whole():
            return  # what was admitted without one has none until its host opens it, for which it may wait long
        if rng.random() < 0.7:
            world.count_fault("journal:old-copy")
            nats.go_back(rng.randint(floor, length - 1))
        else:
            world.count_fault("journal:hole")
            begin = rng.randint(floor, length - 1)
            nats.lose(begin, rng.randint(begin, length))
        world.loop.call_later(rng.random() * 15, self._have_it_repaired, context=NOBODY)

    def journal_lost(self, messages: Sequence[Message]) -> None:
        """The journal lacks these from here on."""
        self.has_journal_gone_back = True
        self._has_lost_tombstone |= any(map(_is_tombstone, messages))

    def _have_it_repaired(self) -> None:
        if not self._world.is_calm:
            self._world.stop_host()

    def _floor(self) -> int:
        messages = self._world.nats.broker.messages
        return max(
            (number for number, message in enumerate(messages, 1) if _is_tombstone(message)),
            default=0,
        )

    def witness(self) -> None:
        """The host is down, and its witness is gone, torn, or the journal is somebody else's as well."""
        world, rng = self._world, self._rng
        if self.is_any or _FILE not in world.witness_files.files or not world.nats.does_sync:
            return
        if not world.rules.ledger().exists:
            return  # nobody else knows of it
        world.crash("witness damaged", with_power=False)
        content = world.witness_files.files.get(_FILE)
        if content is None:
            return
        self._witness = content
        world.servers.witness_lost()
        match rng.choice(("lost", "torn", "flipped", "forged")):
            case "lost":
                world.count_fault("witness:lost")
                self._put(None)
            case "torn":
                world.count_fault("witness:torn")
                self._put(content[: rng.randrange(len(content))])
            case "flipped":
                world.count_fault("witness:flipped")
                at = rng.randrange(len(content))
                self._put(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            case _:
                self._forge()

    def _put(self, content: bytes | None) -> None:
        files = self._world.witness_files
        files.change(_FILE, content)
        files.unsynced.clear()
        files.durable = dict(files.files)

    def _forge(self) -> None:
        """The witness is lost, and the journal ends in something that no Cutover has written."""
        world = self._world
        broker = world.nats.broker
        entries = [
            Entry(each.stored.sequence, decode_record(each.stored.payload), digest_of(each.stored.payload))
            for each in broker.messages
        ]
        ledger = fold(NAME, entries)
        last = next((each.record for each in reversed(entries) if isinstance(each.record, StateRecord)), None)
        self._put(None)
        if last is None or ledger.broken or not ledger.exists:
            world.count_fault("witness:lost")
            return
        world.count_fault("journal:forged")
        self._messages = list(broker.messages)
        forged = replace(
            last,
            state=State.COMMITTED,
            authority=Side.SOURCE,
            decision=ledger.decision + 1,
            operation_id="forged",
            index=ledger.tail.index + 1,
            previous_digest=ledger.tail.digest,
        )
        broker.store(f"cutover.journal.{NAME}.state", encode(forged))

    def closed(self, closed: Closed, process: Process) -> None:
        """Startup keeps it closed: rightly?"""
        world = self._world
        if process is self._started_before:
            return
        if not (self.is_any or self._is_given_up) and world.rules.ledger().broken is None:
            raise BrokenRuleError(f"startup refuses, with journal and witness intact: {closed.message}")
        world.count("closed")
        if "contradict each other" in closed.message:
            world.count("verdict:contradiction")
        if self._is_given_up:
            return  # it will be told
        if self._witness is not None and self._messages is None:
            self._find_way_out(self._witness)
        elif self._witness is not None:
            world.loop.call_later(1.0, self._mend, context=NOBODY)
        elif world.nats.went_back > process.began_on:  # meanwhile
            world.loop.call_later(1.0, self._have_it_repaired, context=NOBODY)
        elif self._has_lost_tombstone:
            self.is_final = True  # by an old copy of the journal; the right one would be needed
            if not world.over.done():
                world.over.set_result(None)
        else:
            raise BrokenRuleError(
                f"startup refuses a journal that its witness could repair: {closed.message}"
            )

    def _find_way_out(self, content: bytes) -> None:
        loop = self._world.loop
        if self._deciding is not None and not self._deciding.done():
            return
        is_rare = _open_seal(NAME, content).authority is Side.TARGET
        if self._world.servers.draw_adoption() or (is_rare and self._rng.random() < ADOPTED_CHANCE):
            self._deciding = loop.create_task(self._have_it_adopted(content), context=NOBODY)
        elif self._rng.random() < GIVEN_UP_CHANCE:
            self._deciding = loop.create_task(self._have_it_given_up(content), context=NOBODY)
        else:
            loop.call_later(1.0, self._mend, context=NOBODY)

    async def _have_it_given_up(self, content: bytes) -> None:
        """Nobody finds the right witness. Who sets up what is left anew sees to it first that no old connection stands.

        A host that was away keeps what cannot be believed until it is told, too.
        """
        world = self._world
        while True:
            await asyncio.sleep(1.0)
            world.servers.end_old_connections()
            is_answered = await world.operator.give_up()
            if self._mend_the_next(content):
                return
            ended, ledger = _open_seal(NAME, content).uuid, world.rules.ledger()
            if is_answered or ledger.uuid != ended:  # it is done, answered or not
                self._witness = self._messages = None  # no journal is put back over its tombstone
                self._is_given_up = True
                if not ledger.exists:  # what is in doubt is not the next one's
                    world.servers.forgotten()
            if not self._is_given_up:
                self._mend()
                return
            if not self._is_unreadable():
                self._is_given_up = False
                world.rules.look_at_files()
                return

    def _is_witness_whole(self) -> bool:
        """Whether the migration that there is has a witness that can be believed."""
        is_there = _FILE in self._world.witness_files.files or not self._world.rules.ledger().exists
        return is_there and not self._is_unreadable()

    def _is_unreadable(self) -> bool:
        content = self._world.witness_files.files.get(_FILE)
        try:
            return content is not None and _open_seal(NAME, content) is None
        except Refusal:
            return True

    async def _have_it_adopted(self, content: bytes) -> None:
        """Nobody finds the right witness, but somebody knows which side is right."""
        await asyncio.sleep(1.0)
        witness = _open_seal(NAME, content)
        is_adopted = witness.state is not None and await self._world.operator.adopt(witness.authority)
        if self._mend_the_next(content):
            return
        if is_adopted or self._world.rules.ledger().adoption is not None:  # the word counts, answered or not
            self._witness = self._messages = None
            self._world.loop.call_later(1.0, self._have_it_opened, context=NOBODY)
        else:
            self._mend()

    def _mend_the_next(self, content: bytes) -> bool:
        """Mend what was not damaged yet when the word was given, for an answer may come late; whether there was any."""
        if self._witness is None or self._witness is content:
            return False
        self._mend()
        return True

    def _have_it_opened(self) -> None:
        """A host whose question went to a service that was no more does not know of the word: it is started anew."""
        host = self._world.host
        if host is not None and any(each.code == Code.NOT_ADMITTED for each in host.closed):
            self._start_anew()

    def _mend(self) -> None:
        """Somebody finds the right witness, and the right journal."""
        world = self._world
        if self._witness is None:
            return
        self._put(self._witness)
        self._witness = None
        if self._messages is not None:
            broker = world.nats.broker
            broker.messages[:] = self._messages
            broker.next_sequence = broker.messages[-1].stored.sequence + 1
            self._messages = None
        world.rules.look_at_files()
        self._start_anew()

    def _start_anew(self) -> None:
        self.is_mended = True
        self._started_before = self._world.host_process
        self._world.stop_host()

    def admitted(self, reply: AdmissionReply, process: Process) -> None:
        """Startup has answered: what is open now is proved."""
        if process is self._started_before:
            return
        self.is_mended = False
        if reply.admitted:
            self._witness = self._messages = None
        if not reply.closed and process.began_on == self._world.nats.went_back:
            self.has_journal_gone_back = False


def _is_tombstone(message: Message) -> bool:
    return isinstance(decode_record(message.stored.payload), TombstoneRecord)
