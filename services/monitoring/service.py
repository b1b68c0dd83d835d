"""The life of the monitoring service: the page first, which says what is missing; then NATS, for as long as it takes.

It can be started before everything else, and everything else can be restarted under it.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

from services.monitoring.access import Access, kept_token
from services.monitoring.browsers import Browsers
from services.monitoring.commanding import Commanding
from services.monitoring.following import Following
from services.monitoring.picture import Link, Picture
from services.monitoring.serving import Place, serving
from services.monitoring.wall import Wall
from services.monitoring.web import Operator, application
from shared.bus.connection import connected
from shared.clock import SystemClock
from shared.config.model import INBOX_PREFIX, Config, MonitoringConfig, NatsConfig
from shared.migration.refusals import Refusal
from shared.process import EXIT_DONE
from shared.supervision.supervisor import supervisor

_log = logging.getLogger(__name__)

DESCRIPTION = "Serves the page that shows all migrations, and their metrics."
RETRY_S = 1.0


async def serve(config: Config, stop: asyncio.Event) -> int:
    """Serve until `stop`.

    Raises:
        Refusal: the page cannot be served where the configuration says, or its token cannot be kept.
    """
    clock = SystemClock()
    wall = Wall(clock)
    picture = Picture(secrets.token_hex(6))
    browsers = Browsers(picture, wall)
    picture.on_change(browsers.wake)
    picture.told_link(Link(url=config.nats.shown_url, since=wall.now()))
    commands = _Commands()
    place = Place.of(config.monitoring.listen)
    with _operator(config.monitoring, commands) as operator:
        names = config.monitoring.host_names
        app = application(picture, browsers, operator, loopback_only=place.is_loopback, host_names=names)
        async with serving(app, place, browsers.close) as url:
            _log.info("the page is at %s", url)
            supervisor.ready(f"The page is at {url}")
            async with _in_the_background() as tasks:
                tasks.create_task(_follow(config.nats, picture, browsers, wall, clock))
                if operator is not None:
                    tasks.create_task(_keep_commanding(config, commands, clock))
                await stop.wait()
    return EXIT_DONE


class _StoppedError(Exception):
    """Ends the work in the background."""


@asynccontextmanager
async def _in_the_background() -> AsyncIterator[asyncio.TaskGroup]:
    """Tasks that end with the context."""
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
            raise _StoppedError
    except* _StoppedError:
        pass


class _Commands:
    """Where the commands go, while there is a connection for them."""

    def __init__(self) -> None:
        self.present: Commanding | None = None

    def get(self) -> Commanding | None:
        """Them, or nothing."""
        return self.present


@contextmanager
def _operator(config: MonitoringConfig, commands: _Commands) -> Iterator[Operator | None]:
    """What an operator's credential adds, where there is one; with its token, while the context is open."""
    if config.operator_nkey_seed_file is None:
        yield None
        return
    named = Path(config.access_token_file) if config.access_token_file else None
    with kept_token(named) as (token, file):
        _log.info("commands are offered to whoever logs in with the access token in %s", file)
        yield Operator(access=Access(token, asyncio.get_running_loop().time), commanding=commands.get)


async def _follow(
    config: NatsConfig, picture: Picture, browsers: Browsers, wall: Wall, clock: SystemClock
) -> None:
    """Follow for ever. Whatever is refused is begun anew: nobody here needs to give up."""
    said = ""
    while True:
        try:
            async with connected(config, name="monitoring", clock=clock) as bus:
                browsers.following = following = Following(bus, config, picture, wall)
                _log.info("connected to NATS at %s", config.shown_url)
                said = ""
                await following.run()
        except* Refusal as refusals:
            said = _say_once(said, "the bus is waited for", refusals.exceptions[0])
        browsers.following = None
        picture.told_link(Link(url=config.shown_url, since=wall.now()))
        await asyncio.sleep(RETRY_S)


async def _keep_commanding(config: Config, commands: _Commands, clock: SystemClock) -> None:
    """Keep a connection with the operator's credential, for ever."""
    nats = _as_operator(config)
    said = ""
    while True:
        try:
            async with connected(nats, name="monitoring-operator", clock=clock) as bus:
                commands.present = Commanding(bus)
                if said:
                    _log.info("commands are offered now")
                said = ""
                await asyncio.Event().wait()
        except Refusal as refusal:
            said = _say_once(said, "commands are not offered yet", refusal)
        finally:
            commands.present = None
        await asyncio.sleep(RETRY_S)


def _say_once(before: str, what: str, why: BaseException) -> str:
    """One line for what lasts, not one a second; returns what was said."""
    sentence = f"{what}: {why}"
    if sentence != before:
        _log.info("%s", sentence)
    return sentence


def _as_operator(config: Config) -> NatsConfig:
    """The same server, with the operator's key, and the inbox that this may hear."""
    seed_file = config.monitoring.operator_nkey_seed_file
    return replace(config.nats, nkey_seed_file=seed_file, inbox_prefix=INBOX_PREFIX)
