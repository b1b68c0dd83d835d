"""`cutover migrate`: the whole way of a migration, from wherever it stands, with a person or a script beside it.

Each round asks for the state and takes the one step that leads on from it, so that an interrupted job goes on where
it was.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from rich.text import Text

from services.console.asking import Link, command, operation_id, status_of
from services.console.comparing import compare
from services.console.confirming import agrees, can_ask, confirm, read_line
from services.console.failures import ConsoleError
from services.console.going_on import GoingOn
from services.console.output import Output
from services.console.reachability import why_out_of_reach
from services.console.views import current_faults, faults_table
from services.console.waiting import facts_of
from services.console.watching import follow
from shared.messages.control import CleanupRequest, PlainRequest, SetupRequest
from shared.messages.questions import after_commit, commit_question
from shared.messages.status import MigrationStatus
from shared.migration.names import NAME_LENGTH_MAX
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from shared.plain import plain


def _why_never_copied(status: MigrationStatus) -> str | None:
    """Why a copy that is under way cannot be completed; None where it can, or is over."""
    if status.state is not State.SYNCING:
        return None
    return why_out_of_reach(
        facts_of(status),
        State.COMMITTED,
        attempt=status.attempt,
        unreadable_regions=len(status.unreadable_regions),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be migrated, and how much is asked on the way."""

    name: str
    source: str
    target: str
    host: str | None = None
    overwrite_target: bool = False
    attach: bool = False
    yes: bool = False


def name_for(source: str) -> str:
    """A name made of the source's: `/dev/vg0/Data_1` is `data-1`."""
    last = urlsplit(source).path.rstrip("/").rpartition("/")[2].rpartition(".")
    stem = re.sub(r"[^a-z0-9]+", "-", (last[0] or last[2]).lower()).strip("-")
    return stem[:NAME_LENGTH_MAX] or "volume"


def path_of(uri: str) -> str | None:
    """The path of a device on this machine; None for a remote one."""
    if uri.startswith("file://"):
        return unquote(urlsplit(uri).path)
    return os.path.abspath(uri) if "://" not in uri else None  # noqa: PTH100 - resolves no link


def device_of(uri: str) -> str:
    """What stands for a device wherever the command is run: its absolute path, or the URI of a remote one."""
    return path_of(uri) or uri


class Migrating:
    """One job on its way."""

    def __init__(self, link: Link, job: Job, out: Output, going_on: GoingOn) -> None:
        """`link` is to services that run; `going_on` is told how far it is."""
        self._link = link
        self._job = job
        self._out = out
        self._going_on = going_on

    async def go(self) -> MigrationStatus:
        """From where it stands to `committed`.

        Raises:
            ConsoleError: `attempt-ended`, `declined`, `gone`, `name-taken`.
            Refusal: a step was refused.
        """
        status = await self._begin()
        self._out.say(f"The volume of {status.name} is {status.export_uri}")
        while status.state is not State.COMMITTED:
            await self._step(status)
            status = await self._settled()
        return status

    async def _begin(self) -> MigrationStatus:
        job = self._job
        try:
            status = await status_of(self._link, job.name)
        except Refusal as refusal:
            if refusal.code is not Code.UNKNOWN_MIGRATION:
                raise
            request = SetupRequest(
                source=device_of(job.source),
                target=device_of(job.target),
                host=job.host,
                overwrite_target=job.overwrite_target,
                operation_id=operation_id(),
            )
            self._going_on.is_begun = True
            await command(self._link, "setup", job.name, request)
            return await status_of(self._link, job.name)
        there, meant = (status.source, status.target), (job.source, job.target)
        if [device_of(uri) for uri in there] != [device_of(uri) for uri in meant]:
            raise ConsoleError(
                Code.NAME_TAKEN,
                f"{job.name} is there already, from {status.source} to {status.target}: choose another --name.",
            ) from None
        self._going_on.is_begun = True
        self._out.say(f"{job.name} is there already, in {status.state}: going on from there.")
        return status

    async def _step(self, status: MigrationStatus) -> None:
        match status.state:
            case State.SETUP:
                await self._until_attached(status)
                await self._command("sync")
            case State.SOURCE_SELECTED:
                await self._command("select-target")
            case State.TARGET_SELECTED:
                if not self._job.yes:
                    await confirm(self._out, "commit", commit_question(status))
                if status.needs_verify:
                    self._out.say("The last sync copied only what could differ: comparing both sides first.")
                    await compare(self._link, self._job.name, self._out)
                await self._command("commit")
                self._out.show(Text(plain(after_commit(status.source)), style="yellow"))
            case State.SYNCING | State.COMMITTED:
                pass

    async def _command(self, verb: str) -> None:
        reply = await command(self._link, verb, self._job.name, PlainRequest(operation_id=operation_id()))
        self._out.say(f"{verb}: {reply.state}" + (f". {reply.message}" if reply.message else ""))

    async def _until_attached(self, status: MigrationStatus) -> None:
        if self._job.attach and not status.connections:
            self._out.say("Waiting for a client to connect.")
            await self._follow(lambda now: bool(now.connections))
        elif not self._job.attach and can_ask():
            self._out.say("Point the application at it, then press Enter to begin copying.")
            await read_line()

    async def _settled(self) -> MigrationStatus:
        """Wait while it copies; then what has become of it.

        Raises:
            ConsoleError: `attempt-ended`, or `out-of-reach` where it goes on and can come to nothing.
        """
        status = await self._follow(
            lambda now: now.state is not State.SYNCING or _why_never_copied(now) is not None
        )
        if (why := _why_never_copied(status)) is not None:
            raise ConsoleError(
                "out-of-reach",
                f"{status.name} cannot be moved: {why}. The source has everything: `cutover abort {status.name}` ends it.",
            )
        if status.state is not State.SETUP:
            return status
        faults = current_faults(status)
        if faults:
            self._out.show(faults_table(faults))
        raise ConsoleError(
            "attempt-ended",
            f"Attempt {status.attempt} of {status.name} has ended in setup; the source has everything. "
            f"Once the cause is gone: {self._going_on.line}",
            attempt=status.attempt,
        )

    async def _follow(self, is_over: Callable[[MigrationStatus], bool]) -> MigrationStatus:
        return await follow(self._link, self._job.name, self._out, is_over)

    async def offer_cleanup(self) -> bool:
        """Clean up if that is wanted and possible; whether it was done."""
        while True:
            status = await status_of(self._link, self._job.name)
            if status.connections and not can_ask():
                self._out.say("Waiting for the clients to disconnect, to clean up.")
                await self._follow(lambda now: not now.connections)
            elif not self._job.yes and not await agrees(self._out, _cleanup_offer(status)):
                self._out.say(
                    f"When the application no longer needs the volume: cutover cleanup {status.name}"
                )
                return False
            self._going_on.is_ending = True
            try:
                await command(self._link, "cleanup", status.name, CleanupRequest(operation_id=operation_id()))
            except Refusal as refusal:
                self._going_on.is_ending = False
                if refusal.code is not Code.CLIENTS_CONNECTED or not can_ask() or self._job.yes:
                    raise
                self._out.error(refusal)
            else:
                self._out.say(f"{status.name} is cleaned up; the data is on {status.target}.")
                return True

    async def linger(self, because: str = "") -> None:
        """Serve on for as long as a client uses the volume: ending now would take its disk away."""
        try:
            status = await status_of(self._link, self._job.name)
        except Refusal:
            return  # it never was
        if status.connections:
            peers = ", ".join(client.peer for client in status.connections)
            serving = f"{status.name} serves on in {status.state} until its clients have gone, or until Ctrl-C: {peers}."
            self._out.note(f"{because} {serving}".lstrip())
            await self._follow(lambda now: not now.connections)


def _cleanup_offer(status: MigrationStatus) -> str:
    clients = (
        f" Still connected: {', '.join(client.peer for client in status.connections)}."
        if status.connections
        else ""
    )
    return f"Clean up {status.name} now? Its volume is closed, so the application has to be away.{clients}"
