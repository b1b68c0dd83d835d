"""The commands that change something: `setup` to `cleanup`, and the copier's `pause`, `resume` and `throttle`."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated

import typer
from rich.console import Group
from rich.text import Text

from services.console.asking import check_name, command, fault_log, operation_id, status_of
from services.console.comparing import compare_or_leave
from services.console.confirming import confirm
from services.console.failures import ConsoleError, usage
from services.console.options import JsonOption, NameArgument, ServerOption, Session, YesOption
from services.console.units import RATE_RULE, UnitError, parse_rate, rate_text
from services.console.views import reply_text
from services.console.waiting import facts_of
from shared.bus.connection import Bus
from shared.messages.control import (
    CleanupRequest,
    CommandReply,
    CommitRequest,
    PlainRequest,
    SetupRequest,
    ThrottleRequest,
    VouchRequest,
)
from shared.messages.questions import (
    abort_question,
    after_commit,
    cleanup_question,
    commit_question,
    vouch_question,
)
from shared.messages.status import FaultView, MigrationStatus
from shared.migration.states import State
from shared.migration.table import Trigger, decide
from shared.plain import plain

moving = typer.Typer()
_PANEL = "Migrate"
_LEADS_TO = {"select-target": State.TARGET_SELECTED, "select-source": State.SOURCE_SELECTED}


@moving.command(rich_help_panel=_PANEL)
def setup(
    context: typer.Context,
    name: NameArgument,
    source: Annotated[
        str,
        typer.Option(
            metavar="URI", help="The device that has the data: an absolute path, a file:// or an nbd:// URI."
        ),
    ],
    target: Annotated[
        str, typer.Option(metavar="URI", help="The device to move to; at least as large as the source.")
    ],
    host: Annotated[
        str | None,
        typer.Option(metavar="HOST", help="The host that opens them; needed when several hosts are up."),
    ] = None,
    overwrite_target: Annotated[
        bool,
        typer.Option(
            "--overwrite-target", help="Accept a target that carries a filesystem or anything else."
        ),
    ] = False,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Pair two devices and open the volume.

    The volume is an NBD export that reads and writes the source. Point the application at it; nothing is copied before
    `cutover sync`.
    """
    session = Session(context, server, json)
    request = SetupRequest(
        source=source,
        target=target,
        host=host,
        overwrite_target=overwrite_target,
        operation_id=operation_id(),
    )
    _send(
        session,
        "setup",
        name,
        request,
        lambda reply: f"set up; the volume is {plain(reply.export_uri or 'closed')}",
    )


@moving.command(rich_help_panel=_PANEL)
def sync(
    context: typer.Context, name: NameArgument, server: ServerOption = None, json: JsonOption = False
) -> None:
    """Begin an attempt: clone every write to both devices, and copy the rest.

    Returns once cloning has begun; `cutover wait NAME source-selected` waits for the copy. Exit status 1 when the attempt
    has failed before that.
    """
    session = Session(context, server, json)
    check_name(name)

    async def work(bus: Bus) -> None:
        reply = await command(bus, "sync", name, PlainRequest(operation_id=operation_id()))
        if reply.state is State.SETUP:
            raise failed_at_once(reply, await fault_log(bus, name))
        session.out.answer(reply, lambda: reply_text(reply, _state_words(reply)))

    session.run(work)


@moving.command(rich_help_panel=_PANEL)
def pause(
    context: typer.Context, name: NameArgument, server: ServerOption = None, json: JsonOption = False
) -> None:
    """Stop copying, or comparing, for now; writes go on to both devices."""
    _plain(context, "pause", name, server, json, lambda _: "the copier is paused")


@moving.command(rich_help_panel=_PANEL)
def resume(
    context: typer.Context, name: NameArgument, server: ServerOption = None, json: JsonOption = False
) -> None:
    """Go on copying, or comparing."""
    _plain(context, "resume", name, server, json, lambda _: "the copier goes on")


@moving.command(rich_help_panel=_PANEL)
def throttle(
    context: typer.Context,
    name: NameArgument,
    rate: Annotated[str, typer.Argument(metavar="RATE|off", help=f"{RATE_RULE[0].upper()}{RATE_RULE[1:]}.")],
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Limit the copier's rate, or lift the limit. Application I/O is never limited."""
    session = Session(context, server, json)
    try:
        limit = parse_rate(rate)
    except UnitError as error:
        raise usage(str(error)) from None
    done = "the copier is not limited" if limit is None else f"the copier is limited to {rate_text(limit)}"
    _send(
        session,
        "throttle",
        name,
        ThrottleRequest(bytes_per_s=limit, operation_id=operation_id()),
        lambda _: done,
    )


@moving.command("select-target", rich_help_panel=_PANEL)
def select_target(
    context: typer.Context, name: NameArgument, server: ServerOption = None, json: JsonOption = False
) -> None:
    """Read from the target; writes still go to both, and `select-source` leads back."""
    _plain(context, "select-target", name, server, json)


@moving.command("select-source", rich_help_panel=_PANEL)
def select_source(
    context: typer.Context, name: NameArgument, server: ServerOption = None, json: JsonOption = False
) -> None:
    """Read from the source again."""
    _plain(context, "select-source", name, server, json)


@moving.command(rich_help_panel=_PANEL)
def commit(
    context: typer.Context,
    name: NameArgument,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Compare both sides first, as `verify` does; only if they are equal."),
    ] = False,
    without_verify: Annotated[
        bool,
        typer.Option(
            "--without-verify", help="Even if the last sync was partial and has not been verified since."
        ),
    ] = False,
    yes: YesOption = False,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Move to the target for good. There is no way back from here."""
    session = Session(context, server, json)
    check_name(name)
    if verify and without_verify:
        raise usage("commit takes --verify or --without-verify, not both.")
    verified = True if verify else (False if without_verify else None)

    async def work(bus: Bus) -> None:
        status = await status_of(bus, name)
        await _ask(session, "commit", status, commit_question(status), yes=yes)
        if verify:
            decide(facts_of(status), Trigger.COMMIT)  # what will be refused is not worth the comparing
            await compare_or_leave(bus, name, session.out)
        request = CommitRequest(verified=verified, operation_id=operation_id())
        reply = await command(bus, "commit", name, request)
        said = Group(reply_text(reply, "committed"), Text(plain(after_commit(status.source)), style="yellow"))
        session.out.answer(reply, lambda: said)

    session.run(work)


@moving.command(rich_help_panel=_PANEL)
def abort(
    context: typer.Context,
    name: NameArgument,
    yes: YesOption = False,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Give the attempt up and go back to the source alone."""
    session = Session(context, server, json)
    check_name(name)

    async def work(bus: Bus) -> None:
        if not yes:
            status = await status_of(bus, name)
            await _ask(session, "abort", status, abort_question(status), yes=yes)
        reply = await command(bus, "abort", name, PlainRequest(operation_id=operation_id()))
        session.out.answer(reply, lambda: reply_text(reply, _state_words(reply)))

    session.run(work)


@moving.command(rich_help_panel=_PANEL)
def cleanup(
    context: typer.Context,
    name: NameArgument,
    disconnect: Annotated[
        bool,
        typer.Option(
            "--disconnect", help="Disconnect the clients that are still there, instead of refusing."
        ),
    ] = False,
    yes: YesOption = False,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Close the volume and forget the migration. The devices keep what they hold."""
    session = Session(context, server, json)
    check_name(name)

    async def work(bus: Bus) -> None:
        if not yes:
            status = await status_of(bus, name)
            await _ask(session, "cleanup", status, cleanup_question(status, disconnect=disconnect), yes=yes)
        request = CleanupRequest(disconnect=disconnect, operation_id=operation_id())
        reply = await command(bus, "cleanup", name, request)
        session.out.answer(reply, lambda: reply_text(reply, "cleaned up; the name is free"))

    session.run(work)


@moving.command(rich_help_panel=_PANEL)
def vouch(
    context: typer.Context,
    name: NameArgument,
    yes: YesOption = False,
    server: ServerOption = None,
    json: JsonOption = False,
) -> None:
    """Say that the old connections to remote devices are gone, so that nothing sent over them can land any more.

    A server of nbd:// devices keeps no lock, so after a broken connection or a crash nobody else can know. See to it at the
    server first, by restarting it for instance.
    """
    session = Session(context, server, json)
    check_name(name)

    async def work(bus: Bus) -> None:
        doubt = (await status_of(bus, name)).doubt  # before the word is asked for: it is given for this one
        if not yes:
            await _confirm(session, "vouch", vouch_question(name))
        reply = await command(
            bus, "vouch", name, VouchRequest(doubt=doubt or "", operation_id=operation_id())
        )
        session.out.answer(reply, lambda: reply_text(reply, "the old connections count as gone"))

    session.run(work)


async def _ask(session: Session, verb: str, status: MigrationStatus, question: str, *, yes: bool) -> None:
    # A command that will be refused is better refused than confirmed.
    if not yes and verb in status.allowed:
        await _confirm(session, verb, question)


async def _confirm(session: Session, verb: str, question: str) -> None:
    try:
        await confirm(session.out, verb, question)
    except asyncio.CancelledError:  # Ctrl-C, for nothing else cancels a command; and this one is not sent yet
        session.out.note("")  # what follows begins a line of its own
        raise ConsoleError("interrupted", f"{verb} was not asked for; nothing was done.") from None


def failed_at_once(reply: CommandReply, log: Sequence[FaultView]) -> ConsoleError:
    """What a `sync` says whose attempt has ended in `setup` before it was answered."""
    kinds = Counter(
        f"{fault.side} {fault.operation}, {fault.cause}" for fault in log if fault.attempt == reply.attempt
    )
    faults = "; ".join(f"{kind} ×{count}" if count > 1 else kind for kind, count in kinds.items())
    cause = f" by a fault: {faults}" if faults else ""
    return ConsoleError(
        "attempt-ended",
        f"Attempt {reply.attempt} of {reply.name} began, and was ended at once{cause}. The source has everything; "
        f"see `cutover faults {reply.name}`.",
        attempt=reply.attempt,
    )


def _plain(
    context: typer.Context,
    verb: str,
    name: str,
    server: str | None,
    json: bool,
    done: Callable[[CommandReply], str] | None = None,
) -> None:
    session = Session(context, server, json)
    _send(session, verb, name, PlainRequest(operation_id=operation_id()), done or _state_words)


def _send(
    session: Session, verb: str, name: str, request: object, done: Callable[[CommandReply], str]
) -> None:
    check_name(name)

    async def work(bus: Bus) -> None:
        reply = await command(bus, verb, name, request)
        if reply.state is not _LEADS_TO.get(verb, reply.state):
            raise _ended_since(reply, verb)
        session.out.answer(reply, lambda: reply_text(reply, done(reply)))

    session.run(work)


def _ended_since(reply: CommandReply, verb: str) -> ConsoleError:
    """What a command says whose state was left again before it was answered."""
    return ConsoleError(
        "attempt-ended",
        f"{verb} was done, and {reply.name} is in {reply.state} since: see `cutover faults {reply.name}`.",
        attempt=reply.attempt,
    )


def _state_words(reply: CommandReply) -> str:
    return f"{reply.state or 'gone'} (attempt {reply.attempt})"
