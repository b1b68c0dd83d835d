"""All migrations of one host: admitted at the start, set up and cleaned up while it runs, stopped together at the end."""

import asyncio
import logging
from collections.abc import Iterator

from services.write_cloning.admitting import Admissions, read_witnesses
from services.write_cloning.fences import refuse_other_doubt
from services.write_cloning.journal_look import has_ended
from services.write_cloning.migration import Migration
from services.write_cloning.opening import Opened, open_admitted, open_new, why_over
from services.write_cloning.own_status import own_status_of
from services.write_cloning.reporter import origin_of
from services.write_cloning.surroundings import Surroundings
from services.write_cloning.views import progress_of, view_of
from services.write_cloning.witness import Witness
from shared.logs.about import Whereabouts, about
from shared.messages.admission import Admission, Closed, GivenAway
from shared.messages.host import (
    ClosedView,
    DecidedReply,
    HostCommand,
    HostSetupRequest,
    HostStatusReply,
    TryAgainRequest,
    doubt_of,
)
from shared.messages.recording import DecisionRequest
from shared.messages.status import HostView, MigrationStatus
from shared.migration.condition import JournalCondition
from shared.migration.devices import Side
from shared.migration.refusals import Code, InvariantError, Refusal
from shared.migration.states import State
from shared.migration.table import Facts, Trigger, decide

log = logging.getLogger(__name__)


class Host:
    """The migrations of this host, by name."""

    def __init__(self, around: Surroundings) -> None:
        """Begin with none; nothing is open before `admit`."""
        self._around = around
        self._migrations: dict[str, Migration] = {}
        self._closed: dict[str, ClosedView] = {}
        self._in_doubt: set[str] = set()  # closed until an operator vouches
        self._vouched_for: set[str] = set()  # being opened on an operator's word
        self._being_set_up: set[str] = set()
        # Cleaned up, so that what belongs to the name is about to be removed; or another host's by now, with requests under way.
        self._being_let_go: set[str] = set()
        self._admissions = Admissions(around)

    @property
    def around(self) -> Surroundings:
        """What it stands in."""
        return self._around

    # ------------------------------------------------------------------ admission

    async def admit(self, only: str = "") -> None:
        """Have the journal replayed, and open the volumes that startup admits (rule R1); or a single one that is not open.

        Raises:
            Refusal: there is no answer yet; nothing was opened.
        """
        judged = await self._admissions.ask(only)
        reply, witnesses = judged.reply, judged.witnesses
        self._closed.pop(only, None)
        for name in reply.removed:
            forgotten = witnesses.get(name)
            await self._forget(name, None if forgotten is None else forgotten.uuid)
        for closed in reply.closed:
            await self._note_given_away(closed.given_away)
            why = await self._why_closed(closed)
            self._keep_closed(closed.migration, closed.uuid, closed.code, why)
        for admission in reply.admitted:
            await self._open(admission, witnesses.get(admission.migration))

    async def try_again(self, name: str, request: TryAgainRequest) -> HostStatusReply:
        """Have one judged anew that is not open here: its records, its devices or an operator's word may be others by now.

        Raises:
            Refusal: `busy`; or there is no answer, and it is as before.
        """
        self._refuse_being_let_go(name)
        if name in self._being_set_up:
            raise Refusal(Code.BUSY, f"{name} is being opened.")
        if name not in self._migrations:
            self._being_set_up.add(name)
            try:
                if request.given_up:
                    await self._forget_unreadable(name, request.uuid)
                await self.admit(only=name)
            finally:
                self._being_set_up.discard(name)
        if (migration := self._migrations.get(name)) is not None:
            await self._look_at(migration)  # an operator's word may have been recorded while it was opened
        return self.status(name)

    async def _forget_unreadable(self, name: str, uuid: str | None) -> None:
        _readable, unreadable = await read_witnesses(self._around)
        for each in unreadable:
            if each.migration == name:
                log.warning("given up; its witness is forgotten: %s", each.reason, extra=about(name))
                await self._forget(name, uuid)

    async def _open(self, admission: Admission, earlier: Witness | None) -> None:
        name = admission.migration
        self._in_doubt.discard(name)
        try:
            opened = await open_admitted(
                admission, earlier, self._around, is_vouched_for=name in self._vouched_for
            )
        except Refusal as refusal:
            if refusal.code is Code.OUTSTANDING_REQUESTS:
                self._in_doubt.add(name)
            self._keep_closed(name, admission.uuid, refusal.code, refusal.message)
            return
        self._begin(opened)
        log.info(
            "admitted as %s and open in %s: %s",
            admission.label,
            admission.state,
            admission.reason,
            extra=about(name),
        )

    async def _why_closed(self, closed: Closed) -> str:
        try:
            return await why_over(closed.migration, closed.uuid, self._around) or closed.message
        except Refusal as refusal:
            log.warning("%s", refusal.message, extra=about(closed.migration))
            return closed.message

    def _begin(self, opened: Opened) -> None:
        self._migrations[opened.migration.name] = opened.migration
        opened.migration.begin(target_missing=opened.target_missing)

    def _keep_closed(self, name: str, uuid: str | None, code: str, message: str) -> None:
        log.error("%s stays closed: %s", name, message, extra=about(name))
        self._closed[name] = ClosedView(name=name, uuid=uuid, code=code, message=message)

    # ------------------------------------------------------------------ set-up and clean-up

    async def set_up(self, name: str, request: HostSetupRequest) -> DecidedReply:
        """Open and check two devices, and begin a migration in `setup`.

        Raises:
            Refusal: the name is taken here, or something is wrong with a device. Nothing stays open.
        """
        present = self._migrations.get(name)
        if present is not None and present.witness.operation_id == request.operation_id:
            return await present.confirm()
        self._refuse_being_let_go(name)
        if name in self._closed and name not in self._being_set_up:
            await self._look_again(name)
        if name in self._migrations or name in self._closed or name in self._being_set_up:
            raise Refusal(Code.NAME_TAKEN, f"Host {self._around.host} has a migration named {name} already.")
        self._being_set_up.add(name)
        try:
            migration = await self._set_up(name, request)
        finally:
            self._being_set_up.discard(name)
        return await migration.confirm()

    def _refuse_being_let_go(self, name: str) -> None:
        """Refuse to begin what the end of the last migration of that name would remove or still use: witness, map, devices."""
        if name in self._being_let_go:
            raise Refusal(Code.BUSY, f"The last migration named {name} is being let go of: try again.")

    async def _look_again(self, name: str) -> None:
        """Have one judged anew before it keeps its name from another: it may be over by now."""
        try:
            await self.try_again(name, TryAgainRequest())
        except Refusal as refusal:
            log.info("not judged anew: %s", refusal.message, extra=about(name))

    async def _set_up(self, name: str, request: HostSetupRequest) -> Migration:
        row = decide(Facts(state=None), Trigger.SETUP)
        try:
            opened = await open_new(name, request, row.trigger, self._around)
        except Refusal as refusal:
            if refusal.code is Code.DEVICE_BUSY:
                await self._refuse_own_devices(request)
            raise
        self._begin(opened)
        log.info("set up, and open", extra=about(name))
        witness = opened.migration.witness
        opened.migration.reporter.want_decision(
            DecisionRequest(
                origin=origin_of(witness),
                state=State.SETUP,
                authority=Side.SOURCE,
                trigger=row.trigger,
                devices=witness.devices,
            )
        )
        return opened.migration

    async def _refuse_own_devices(self, request: HostSetupRequest) -> None:
        """Say which migration of this host has a device, where one has: its own lock names only this process."""
        for migration in tuple(self._migrations.values()):
            devices = migration.witness.devices
            for own, side in ((devices.source, Side.SOURCE), (devices.target, Side.TARGET)):
                for uri in (request.source, request.target):
                    if await self._is_same(uri, own.name):
                        message = f"{uri} is in use: it is the {side} of migration {migration.name}."
                        raise Refusal(Code.DEVICE_BUSY, message)

    async def _is_same(self, uri: str, other_uri: str) -> bool:
        try:
            return await self._around.opener.is_same(uri, other_uri)
        except Refusal:  # what cannot be looked at is none that we hold
            return False

    async def vouch(self, name: str, request: HostCommand) -> DecidedReply:
        """Take the operator's word that the old connections to remote devices are gone; opens what was closed for want of it.

        Raises:
            Refusal: it cannot be opened all the same; or there is no such migration; `stale` for a word that was given before.
        """
        closed = self._closed.get(name)
        if name in self._in_doubt and closed is not None and closed.uuid == request.uuid:
            refuse_other_doubt(name, request, doubt_of(closed.uuid or "", self._around.run))
            self._vouched_for.add(name)
            try:
                await self.try_again(name, TryAgainRequest())  # its records may be others by now, too
            finally:
                self._vouched_for.discard(name)
            return await self.find(name).confirm()
        return await self.find(name).vouch(request)

    async def clean_up(self, name: str, request: HostCommand) -> DecidedReply:
        """Forget a migration. Its devices are let go, and its witness too once the journal holds the tombstone."""
        migration = self.find(name)
        reply = await migration.command(Trigger.CLEANUP, request)
        if reply.journal:
            await self._let_go(migration)
        else:
            self._around.tasks.create_task(self._let_go_later(migration), name=f"let go of {name}")
        return reply

    async def _let_go_later(self, migration: Migration) -> None:
        await migration.reporter.settled(None)
        await self._let_go(migration)

    async def _let_go(self, migration: Migration) -> None:
        name = migration.name
        if self._migrations.get(name) is not migration:
            return
        del self._migrations[name]
        self._being_let_go.add(name)
        try:
            await migration.release()
            log.info("closed, and let go", extra=about(name, migration.witness.attempt))
            await self._forget(name, migration.witness.uuid)
        finally:
            self._being_let_go.discard(name)

    async def _forget(self, name: str, uuid: str | None) -> None:
        """Remove what is kept of a migration that is over. What cannot be removed is when the host is started next."""
        try:
            await self._around.witnesses.forget(name, uuid)
            if self._around.maps is not None:
                await self._around.maps.remove_all(name)
        except OSError as error:
            log.warning("what was kept of it could not be removed: %s", error, extra=about(name))

    # ------------------------------------------------------------------ asking

    def find(self, name: str) -> Migration:
        """The migration of that name.

        Raises:
            Refusal: it is closed, and why; or there is none.
        """
        if name in self._closed:
            raise Refusal(Code.NOT_ADMITTED, f"{name} is closed: {self._closed[name].message}")
        migration = self._migrations.get(name)
        if migration is None:
            raise Refusal(Code.UNKNOWN_MIGRATION, f"Host {self._around.host} has no migration named {name}.")
        return migration

    def status(self, name: str | None = None) -> HostStatusReply:
        """What this host knows of one migration, or of all."""
        asked = [migration for migration in self._migrations.values() if name in {None, migration.name}]
        return HostStatusReply(
            host=self._around.host,
            run=self._around.run,
            warnings=tuple(warning for migration in asked for warning in migration.warnings),
            migrations=tuple(view_of(migration, self._around) for migration in asked),
            closed=tuple(closed for closed in self._closed.values() if name in {None, closed.name}),
            opening=tuple(sorted(each for each in self._being_set_up if name in {None, each})),
        )

    async def look_at_journal(self) -> None:
        """Look whether the journal holds what each migration relied on, one after the other; and which closed ones are over.

        What an operator has given to another host, or given up, is served no more; nor what a later run of this name has.
        """
        for migration in tuple(self._migrations.values()):
            await self._look_at(migration)
        for closed in tuple(self._closed.values()):
            if closed.uuid is not None and await self._is_over(closed.name, closed.uuid):
                await self._look_again(closed.name)

    async def _look_at(self, migration: Migration) -> None:
        journal = migration.journal
        await journal.again()
        if journal.condition is JournalCondition.GIVEN_AWAY:
            given = journal.given_away
            self._hand_over(
                migration, f"{journal.trouble} `cutover adopt --host {self._around.host}` would admit it."
            )
            await self._note_given_away(given)
        elif journal.condition is JournalCondition.LATER_RUN:
            self._hand_over(
                migration,
                f"{journal.trouble} End this process, and give each machine a host name of its own; of this name only the "
                "latest run would be admitted.",
            )
        elif journal.is_over and migration.witness.state is not None:  # not by its own clean-up
            self._hand_over(migration, f"{migration.name} was given up.")
        elif journal.unknown_word:
            self._hand_over(
                migration,
                f"an operator's word was recorded of {migration.name} while it was open here, or was being opened; "
                f"`cutover recover {migration.name}` tells what may be done.",
            )

    async def _note_given_away(self, given: GivenAway | None) -> None:
        """Keep in mind that another host has it, so that no older journal opens it here."""
        if given is None:
            return
        try:
            await self._around.witnesses.openings.note_given_away(given)
        except OSError as error:
            why = error.strerror or error
            log.warning(
                "that host %s has it could not be noted: %s", given.host, why, extra=about(given.migration)
            )

    def _hand_over(self, migration: Migration, why: str) -> None:
        """Close what others may write to by now. The witness stays: it may be the newest that there is."""
        name = migration.name
        if self._migrations.get(name) is not migration:
            return
        del self._migrations[name]
        self._being_let_go.add(name)
        self._keep_closed(name, migration.witness.uuid, Code.NOT_ADMITTED, why)
        self._around.tasks.create_task(self._release_given_away(migration), name=f"hand over {name}")

    async def _release_given_away(self, migration: Migration) -> None:
        try:
            await migration.hand_over()
            log.warning("closed, and let go", extra=about(migration.name, migration.witness.attempt))
        except (Refusal, OSError, InvariantError):
            log.exception("not let go of cleanly", extra=about(migration.name))
        finally:
            self._being_let_go.discard(migration.name)

    async def _is_over(self, name: str, uuid: str) -> bool:
        try:
            ledger = await self._around.journal.read(name)
        except Refusal:  # nobody knows, for now
            return False
        return has_ended(ledger, uuid)

    def whereabouts(self, name: str) -> Whereabouts:
        """Which attempt an open migration is in, for the log."""
        migration = self._migrations.get(name)
        return Whereabouts(None if migration is None else migration.witness.attempt, self._around.host)

    def views(self) -> Iterator[HostView]:
        """Every open migration, each as it is when it is asked for."""
        for migration in tuple(self._migrations.values()):
            yield progress_of(migration, self._around)

    def own_statuses(self) -> Iterator[MigrationStatus]:
        """Every open migration as `query` tells it, by what this host knows alone."""
        for migration in self._migrations.values():
            yield own_status_of(migration, self._around)

    @property
    def closed(self) -> tuple[ClosedView, ...]:
        """Those that are kept closed, and why."""
        return tuple(self._closed.values())

    # ------------------------------------------------------------------ the end

    async def stop(self) -> bool:
        """Stop every migration, side by side; returns whether all stops were clean."""
        return all(await asyncio.gather(*(self._stop(migration) for migration in self._migrations.values())))

    @staticmethod
    async def _stop(migration: Migration) -> bool:
        try:
            is_clean = await migration.stop()
        except (Refusal, OSError, InvariantError):
            log.exception("not stopped cleanly", extra=about(migration.name))  # the others shall be
            return False
        if is_clean:
            log.info("closed", extra=about(migration.name))
        else:
            log.warning("closed, but not cleanly", extra=about(migration.name))
        return is_clean

    def busy_devices(self) -> list[str]:
        """Those of all migrations, see `LeftBehind`."""
        return [
            each
            for migration in self._migrations.values()
            for each in migration.apparatus.left_behind.busy_devices()
        ]

    async def release(self) -> None:
        """Close every device."""
        for migration in tuple(
            self._migrations.values()
        ):  # one may be let go of meanwhile, when its clean-up is on record
            await migration.release()
