"""The options that commands share, and the session that they make: a connection and an output."""

import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from services.console.asking import list_all
from services.console.command_line import given
from services.console.named_nats import CONFIG_VARIABLE, nats_of
from services.console.output import Output
from shared.bus.connection import Bus, connect
from shared.clock import SystemClock
from shared.config.load import ConfigError
from shared.config.model import NatsConfig
from shared.migration.refusals import Refusal

DEFAULT_SERVER = "nats://127.0.0.1:4222"
SERVER_VARIABLE = "CUTOVER_NATS_URL"
CONNECT_TIMEOUT_S = 3.0
COMPLETION_TIMEOUT_S = 1.0


class Session:
    """What one command line works with."""

    def __init__(
        self, context: typer.Context, server: str | None, json: bool, config: Path | None = None
    ) -> None:
        """Options may stand before or behind the command's name; behind it they count.

        Raises:
            ConfigError: the file of --config or CUTOVER_CONFIG, or CUTOVER_NATS_… in the environment, is no use.
        """
        named = given(context, "server") or server
        self._nats = nats_of(os.environ, config)
        self.server_was_named = bool(named) or self._nats.url != DEFAULT_SERVER
        self.server = str(named) if named else self._nats.url
        self.out = Output(json=json or bool(given(context, "json")))

    def nats_at(self, server: str) -> NatsConfig:
        """A server, and our credentials."""
        return replace(self._nats, url=server)

    def run(
        self, work: Callable[[Bus], Awaitable[None]], *, connect_timeout_s: float = CONNECT_TIMEOUT_S
    ) -> None:
        """Connect, work, disconnect.

        Raises:
            Refusal: `journal-away` when there is no NATS; or whatever the work was refused for.
        """
        uvloop.run(self._connected(work, connect_timeout_s))

    async def _connected(self, work: Callable[[Bus], Awaitable[None]], timeout_s: float) -> None:
        nats = self.nats_at(self.server)
        bus = await connect(nats, name="console", clock=SystemClock(), timeout_s=timeout_s)
        try:
            await work(bus)
        finally:
            await bus.close()


def names_beginning(context: typer.Context, incomplete: str) -> list[str]:
    """The names of migrations, for shell completion; none when nobody can be asked."""
    server = context.find_root().params.get("server")
    try:
        nats = nats_of(os.environ)
        return uvloop.run(_names_beginning(replace(nats, url=server or nats.url), incomplete))
    except (ConfigError, Refusal, OSError):
        return []


async def _names_beginning(nats: NatsConfig, incomplete: str) -> list[str]:
    bus = await connect(nats, name="console", clock=SystemClock(), timeout_s=COMPLETION_TIMEOUT_S)
    try:
        reply = await list_all(bus)
        names = {each.name for each in reply.migrations} | {each.name for each in reply.unlisted}
        return sorted(name for name in names if name.startswith(incomplete))
    finally:
        await bus.close()


ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server", "-s",
        metavar="URL",
        envvar=SERVER_VARIABLE,
        help=f"Where NATS is; {DEFAULT_SERVER} unless given.",
        show_default=False,
    ),
]  # fmt: skip
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="One JSON document on standard output and nothing else; errors, too."),
]
YesOption = Annotated[
    bool,
    typer.Option("--yes", "-y", help="Do it without asking; needed where there is no terminal to ask on."),
]
HostStateDirOption = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        metavar="DIR",
        help="While NATS is away: where `cutover up`, or the host on this machine, keeps its state.",
        show_default=False,
    ),
]
HostConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar=CONFIG_VARIABLE,
        help="Where NATS is and with which key; that of a host on its machine is asked of the host, too, where NATS cannot tell.",
        exists=True,
        dir_okay=False,
        show_default=False,
    ),
]
NameArgument = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="The migration's name.", autocompletion=names_beginning, show_default=False
    ),
]
