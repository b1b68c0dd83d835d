"""All migrations of one host: admitted at the start, set up and cleaned up while it runs, stopped together at the end."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import replace

from services.write_cloning.devices.absent import AbsentDevice
from services.write_cloning.devices.interface import Device
from services.write_cloning.fences import (
    refuse_in_doubt,
    refuse_other_doubt,
    sides_in_doubt,
    unfenced_sides,
    unfenced_when_admitted,
)
from services.write_cloning.map_keeper import MapKeeper
from services.write_cloning.map_takeover import NOTHING_COPIED, taken_over
from services.write_cloning.migration import Migration
from services.write_cloning.own_status import own_status_of
from services.write_cloning.reporter import origin_of
from services.write_cloning.surroundings import Surroundings
from services.write_cloning.views import progress_of, view_of
from services.write_cloning.witness import Witness
from shared.bus.interface import Unanswered
from shared.logs.about import Whereabouts, about
from shared.messages.admission import (
    Admission,
    AdmissionReply,
    AdmissionRequest,
    admission_subject,
)
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
from shared.migration.devices import Side
from shared.migration.names import NAME_RULE, is_valid_name
from shared.migration.records import DevicePair
from shared.migration.refusals import Code, InvariantError, Refusal
from shared.migration.states import CLONING_STATES, State
from shared.migration.table import Facts, Trigger, decide

log = logging.getLogger(__name__)

ADMISSION_TIMEOUT_S = 60.0

_OVER = (
    "it was cleaned up on this host, and the journal is older than that. Bring the newer journal back, or say "
    "`cutover recover {} --give-up`."
)
_AWAY = frozenset({Code.SERVICE_AWAY, Code.JOURNAL_AWAY})
_MISTAKES = frozenset({Code.DEVICE_CHANGED, Code.DEVICE_NOT_ALLOWED})  # of the operator, not of the device


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
        self._being_let_go: set[str] = set()  # cleaned up; what belongs to the name is about to be removed
        self._has_asked = False  # for admission, in this run

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
        witnesses, unreadable = await self._around.witnesses.read_all()
        opened = await self._around.witnesses.openings.read()
        request = AdmissionRequest(
            host=self._around.host,
            run=self._around.run,
            life=self._around.life,
            only=only,
            asked_before=self._has_asked,
            witnesses=tuple(witness.view(opened.get(witness.uuid)) for witness in witnesses),
            unreadable=tuple(unreadable),
        )
        reply = await self._ask(request)
        self._closed.pop(only, None)
        uuids = {witness.migration: witness.uuid for witness in witnesses}
        for name in reply.removed:
            await self._forget(name, uuids.get(name))
        for closed in reply.closed:
            is_over = closed.uuid is not None and await self._around.witnesses.openings.is_removed(
                closed.uuid
            )
            message = _OVER.format(closed.migration) if is_over else closed.message
            self._keep_closed(closed.migration, closed.uuid, closed.code, message)
        known = {witness.migration: witness for witness in witnesses}
        for admission in reply.admitted:
            await self._open(admission, known.get(admission.migration))

    async def _ask(self, request: AdmissionRequest) -> AdmissionReply:
        subject = admission_subject(self._around.host)
        try:
            reply = await self._around.requests.request(
                subject, request, AdmissionReply, timeout_s=ADMISSION_TIMEOUT_S
            )
        except Refusal as refusal:
            # Away: nobody was reached, or nothing was judged. Anything else may have left records of this run.
            is_definite = not isinstance(refusal, Unanswered) and refusal.code in _AWAY
            self._has_asked = self._has_asked or not is_definite
            raise
        self._has_asked = True
        _refuse_malformed(reply)
        return reply

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
        return self.status(name)

    async def _forget_unreadable(self, name: str, uuid: str | None) -> None:
        _readable, unreadable = await self._around.witnesses.read_all()
        for each in unreadable:
            if each.migration == name:
                log.warning("given up; its witness is forgotten: %s", each.reason, extra=about(name))
                await self._forget(name, uuid)

    async def _open(self, admission: Admission, earlier: Witness | None) -> None:
        is_vouched_for = admission.migration in self._vouched_for
        self._in_doubt.discard(admission.migration)
        if earlier is not None and earlier.uuid != admission.uuid:
            earlier = None  # of another migration, in whose place an operator's word stands
        if earlier is None and await self._around.witnesses.openings.is_removed(admission.uuid):
            message = _OVER.format(admission.migration)
            self._keep_closed(admission.migration, admission.uuid, Code.NOT_ADMITTED, message)
            return
        in_doubt = () if is_vouched_for else sides_in_doubt(admission.devices, earlier)
        try:
            refuse_in_doubt(admission, in_doubt)
        except Refusal as refusal:
            self._in_doubt.add(admission.migration)
            self._keep_closed(admission.migration, admission.uuid, refusal.code, refusal.message)
            return
        try:
            source, target, target_missing = await self._open_devices(admission)
        except Refusal as refusal:
            message = (
                f"{refusal.message} Then restart the write cloning service of host {self._around.host}, or say "
                f"`cutover recover {admission.migration} --try-again`."
            )
            self._keep_closed(admission.migration, admission.uuid, refusal.code, message)
            return
        maps = await taken_over(
            admission,
            earlier,
            files=self._around.maps,
            region_size_bytes=self._around.limits.region_size_bytes,
            run=self._around.run,
        )
        witness = _admitted_witness(admission, earlier, maps, self._around)
        witness = replace(witness, unfenced=unfenced_when_admitted(admission, in_doubt))
        try:
            await self._around.witnesses.write(witness)
            await self._around.witnesses.openings.note(witness.uuid, witness.run)
        except OSError as error:
            await maps.release()
            await source.close()
            await target.close()
            message = f"its witness could not be written: {error.strerror or error}"
            self._keep_closed(admission.migration, admission.uuid, Code.INTERNAL, message)
            return
        await maps.tidy()
        migration = Migration(witness=witness, source=source, target=target, maps=maps, around=self._around)
        self._migrations[admission.migration] = migration
        migration.begin(target_missing=target_missing)
        log.info(
            "admitted as %s and open in %s: %s",
            admission.label,
            admission.state,
            admission.reason,
            extra=about(migration.name),
        )

    async def _open_devices(self, admission: Admission) -> tuple[Device, Device, str]:
        """Open both sides, or the authority alone, and tell why a target that the state needs is not open.

        In `setup` the target is opened if it can be, so that it is locked. In a cloning state a target that is gone or broken has
        failed, as it may do at any other time. One that is another device, or that this host may not open, is somebody's
        mistake, to be cleared up before anything is used.
        """
        devices, opener = admission.devices, self._around.opener
        if admission.authority is Side.TARGET:
            target = await opener.open_recorded(devices.target, is_target=True)
            return AbsentDevice(devices.source), target, ""
        source = await opener.open_recorded(devices.source, is_target=False)
        try:
            return source, await opener.open_recorded(devices.target, is_target=True), ""
        except Refusal as refusal:
            if admission.state is not State.SETUP and refusal.code in _MISTAKES:
                await source.close()
                raise
            log.warning(
                "the target is not open: %s",
                refusal.message,
                extra=about(admission.migration, admission.attempt),
            )
            missing = "" if admission.state is State.SETUP else str(refusal.code)
            return source, AbsentDevice(devices.target), missing

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
            migration = await self._begin(name, request)
        finally:
            self._being_set_up.discard(name)
        return await migration.confirm()

    def _refuse_being_let_go(self, name: str) -> None:
        """Refuse to begin what the end of the last migration of that name would remove: its witness, and its map."""
        if name in self._being_let_go:
            raise Refusal(Code.BUSY, f"The last migration named {name} is being let go of: try again.")

    async def _look_again(self, name: str) -> None:
        """Have one judged anew before it keeps its name from another: it may be over by now."""
        try:
            await self.try_again(name, TryAgainRequest())
        except Refusal as refusal:
            log.info("not judged anew: %s", refusal.message, extra=about(name))

    async def _begin(self, name: str, request: HostSetupRequest) -> Migration:
        row = decide(Facts(state=None), Trigger.SETUP)
        try:
            source, target, devices = await self._around.opener.open_pair(
                request.source, request.target, overwrite_target=request.overwrite_target
            )
        except Refusal as refusal:
            if refusal.code is Code.DEVICE_BUSY:
                await self._refuse_own_devices(request)
            raise
        witness = self._first_witness(name, request, devices, row.trigger)
        try:
            await self._around.witnesses.write(witness)
            await self._around.witnesses.openings.note(witness.uuid, witness.run)
        except OSError as error:
            await source.close()
            await target.close()
            with contextlib.suppress(OSError):  # it may be there all the same; then the next start finds it
                await self._around.witnesses.discard(name)
            raise Refusal(Code.INTERNAL, f"The witness of {name} could not be written: {error}.") from error
        region_count = -(-devices.source.size_bytes // self._around.limits.region_size_bytes)
        maps = MapKeeper(name, region_count, self._around.maps, full_because=NOTHING_COPIED)
        migration = Migration(witness=witness, source=source, target=target, maps=maps, around=self._around)
        self._migrations[name] = migration
        migration.begin()
        log.info("set up, and open", extra=about(name))
        migration.reporter.want_decision(
            DecisionRequest(
                origin=origin_of(witness),
                state=State.SETUP,
                authority=Side.SOURCE,
                trigger=row.trigger,
                devices=devices,
            )
        )
        return migration

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

    def _first_witness(
        self, name: str, request: HostSetupRequest, devices: DevicePair, trigger: Trigger
    ) -> Witness:
        return Witness(
            migration=name,
            uuid=request.uuid,
            host=self._around.host,
            run=self._around.run,
            state=State.SETUP,
            decision=1,
            operation_id=request.operation_id,
            trigger=trigger,
            devices=devices,
            unfenced=unfenced_sides(devices, State.SETUP, Side.SOURCE),
        )

    async def vouch(self, name: str, request: HostCommand) -> DecidedReply:
        """Take the operator's word that the old connections to remote devices are gone; opens what was closed for want of it.

        Raises:
            Refusal: it cannot be opened all the same; or there is no such migration; `stale` for a word that was given before.
        """
        closed = self._closed.get(name)
        if name in self._in_doubt and closed is not None and closed.uuid == request.uuid:
            refuse_other_doubt(name, request, doubt_of(self._around.run))
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
        await self._around.witnesses.forget(name, uuid)
        if self._around.maps is not None:
            await self._around.maps.remove_all(name)

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
        )

    async def look_at_journal(self) -> None:
        """Look whether the journal holds what each migration relied on, one after the other; and which closed ones are over."""
        for migration in tuple(self._migrations.values()):
            await migration.look_at_journal()
        for closed in tuple(self._closed.values()):
            if closed.uuid is not None and await self._is_over(closed.name, closed.uuid):
                await self._look_again(closed.name)

    async def _is_over(self, name: str, uuid: str) -> bool:
        try:
            ledger = await self._around.journal.read(name)
        except Refusal:  # nobody knows, for now
            return False
        return ledger.has_had(uuid) and ledger.uuid != uuid

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
        log.info("closed%s", "" if is_clean else ", but not cleanly", extra=about(migration.name))
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
        for migration in self._migrations.values():
            await migration.release()


def _refuse_malformed(reply: AdmissionReply) -> None:
    """Names become names of files."""
    admitted, closed = (
        [each.migration for each in reply.admitted],
        [each.migration for each in reply.closed],
    )
    for name in (*admitted, *closed, *reply.removed):
        if not is_valid_name(name):
            raise Refusal(
                Code.INTERNAL, f"startup speaks of {name!r}, which is no name of a migration: {NAME_RULE}."
            )


def _ends_attempt(earlier: Witness, admission: Admission) -> bool:
    return earlier.state in CLONING_STATES and admission.state is State.SETUP


def _admitted_witness(
    admission: Admission, earlier: Witness | None, maps: MapKeeper, around: Surroundings
) -> Witness:
    is_same_attempt = earlier is not None and earlier.attempt == admission.attempt
    is_going_on = is_same_attempt and admission.state is not State.SETUP
    return Witness(
        migration=admission.migration,
        uuid=admission.uuid,
        host=around.host,
        run=around.run,
        state=admission.state,
        authority=admission.authority,
        attempt=admission.attempt,
        decision=admission.decision,
        operation_id=f"{admission.uuid}:admitted:{around.run}",
        trigger=admission.label,
        detail=admission.reason,
        tail_digest=admission.tail_digest,
        flag_digest=admission.flag_digest,
        spent_flag_digest=earlier.spent_flag_digest if earlier is not None else "",
        faults=earlier.faults if earlier is not None and is_same_attempt else (),
        devices=admission.devices,
        region_map=maps.map_id,
        full_because=maps.full_because,
        paused=earlier is not None and earlier.paused and not _ends_attempt(earlier, admission),
        throttle_bytes_per_s=earlier.throttle_bytes_per_s if earlier is not None else None,
        needs_verify=earlier.needs_verify if earlier is not None and is_going_on else False,
        verified_at=earlier.verified_at if earlier is not None and is_going_on else None,
    )
