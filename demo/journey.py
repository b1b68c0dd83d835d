"""The journey of a volume, from setup to cleanup, under an application that never pauses."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from demo.application import Application, StepFigures, at_work
from demo.listing import Listing, read_listing
from demo.proof import COMMIT_ASKED, COMMIT_DONE, Finding
from demo.screen import Screen
from demo.system import System, running

NAME = "demo"
HOLD_S = 2.5  # in each state, so that there is something to see
COPY_RATE = "20MiB/s"  # likewise


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the application did, and what the proof found."""

    steps: Sequence[StepFigures]
    findings: Sequence[Finding]


class Volumes(Protocol):
    """Source and target, what the application does with them, and what must hold in the end."""

    @property
    def source(self) -> Path:
        """The device that has the data."""

    @property
    def target(self) -> Path:
        """The device to move to."""

    @property
    def setup_options(self) -> Sequence[str]:
        """More for the command line of `cutover setup`."""

    async def prepare(self, screen: Screen) -> None:
        """Make or check them, before anything runs."""

    async def client_options(self, scratch: Path, screen: Screen) -> Sequence[str]:
        """More for the client's command line, now that the volume is up."""

    def prove(self, listing: Listing, scratch: Path) -> Sequence[Finding]:
        """Compare what is with what has to be, once everything has stopped."""


class Journey:
    """One run from end to end."""

    def __init__(self, volumes: Volumes, screen: Screen, scratch: Path) -> None:
        """`scratch` is an empty folder for everything that goes away again."""
        self._volumes = volumes
        self._screen = screen
        self._scratch = scratch

    async def go(self) -> Outcome:
        """Go all the way, then prove it.

        Raises:
            DemoError: something went wrong, or the application saw a wrong byte.
        """
        volumes, screen, scratch = self._volumes, self._screen, self._scratch
        await volumes.prepare(screen)
        listing_file = scratch / "acknowledged.list"
        async with running(scratch / "state", scratch / "up.log", volumes.source, volumes.target) as system:
            screen.say(f"cutover up: NATS and all services, NATS at {system.nats_url}")
            export_uri = await self._set_up(system)
            arguments = await volumes.client_options(scratch, screen)
            async with at_work(
                [export_uri, str(listing_file), *arguments], scratch / "client.log", screen.application
            ) as application:
                screen.say("the application has connected, and works without pause from here on")
                await self._migrate(system, application)
                await application.stop()
                screen.say("the application has stopped by itself")
            await system.command("cleanup", NAME, "--yes")
            screen.say("cleanup: the volume is closed, the migration forgotten")
        screen.say("everything is stopped; now the proof")
        with listing_file.open() as lines:
            listing = read_listing(lines)
        findings = await asyncio.to_thread(volumes.prove, listing, scratch)
        return Outcome(list(application.steps.values()), findings)

    async def _set_up(self, system: System) -> str:
        volumes = self._volumes
        devices = ("--source", str(volumes.source), "--target", str(volumes.target))
        reply = await system.command("setup", NAME, *devices, *volumes.setup_options)
        self._screen.say(f"setup: {volumes.source} → {volumes.target}")
        return str(reply["export_uri"])

    async def _migrate(self, system: System, application: Application) -> None:
        async with system.watching(NAME) as statuses, asyncio.TaskGroup() as tasks:
            following = tasks.create_task(self._screen.follow(statuses))
            await self._hold(application, "setup")
            await self._copy(system, application)
            await self._hold(application, "source-selected")
            for verb, step in (
                ("select-target", "target-selected"),
                ("select-source", "source-selected, again"),
                ("select-target", "target-selected, again"),
            ):
                await self._command(system, verb)
                await self._hold(application, step)
            await application.mark(COMMIT_ASKED)
            await self._command(system, "commit", "--yes")
            await application.mark(COMMIT_DONE)
            await self._hold(application, "committed")
            following.cancel()

    async def _copy(self, system: System, application: Application) -> None:
        application.step("syncing")
        await system.command("throttle", NAME, COPY_RATE)
        await self._command(system, "sync")
        self._screen.say(f"copying, limited to {COPY_RATE} so that there is something to see")
        await system.command("wait", NAME, "source-selected", "--timeout", "600")

    async def _command(self, system: System, verb: str, *options: str) -> None:
        self._screen.say(f"command {verb}", "bold")
        await system.command(verb, NAME, *options)

    async def _hold(self, application: Application, step: str) -> None:
        application.step(step)
        await asyncio.sleep(HOLD_S)
        application.check()
