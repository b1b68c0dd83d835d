"""What every service's process has in common: its command line, its log, its loop, and how it is stopped.

SIGTERM and SIGINT ask for an orderly stop, once: the service's own code notices, and leaves its contexts in the fixed
order in which they are nested. A second signal changes nothing; who cannot wait sends SIGKILL, and the next startup
knows what to do.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import uvloop

from shared.config.load import ConfigError, load
from shared.config.model import Config
from shared.logs.handler import logging_to_stderr
from shared.migration.refusals import Refusal
from shared.plain import plain
from shared.stopping import StoppedError
from shared.supervision.supervisor import supervisor

_log = logging.getLogger(__name__)

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2

Refused = TypeVar("Refused", Refusal, ConfigError)

Service = Callable[[Config, asyncio.Event], Awaitable[int]]
"""Serves until the event is set, then stops in order; returns the exit status."""


def run_service(name: str, description: str, service: Service) -> int:
    """Run a service's process from its command line to its exit status."""
    try:
        config = load(config_argument(name, description), os.environ)
    except ConfigError as error:
        sys.stderr.write(f"{plain_lines(str(error))}\n")
        return EXIT_USAGE
    with logging_to_stderr(config.log, name.rpartition(".")[2]):
        return _run(name, service, config)


def _run(name: str, service: Service, config: Config) -> int:
    status = EXIT_FAILED
    try:
        status = uvloop.run(_serve(name, service, config))
    except* StoppedError:
        _log.info("%s has stopped before it began", name)
        status = EXIT_DONE
    except* Refusal as refusals:  # a sentence for the operator, not a defect of ours
        for refusal in _leaves(refusals):
            _log.error("%s stops: %s", name, refusal)
    except* ConfigError as mistakes:  # in what the configuration names
        for mistake in _leaves(mistakes):
            _log.error("%s stops: %s", name, mistake)
        status = EXIT_USAGE
    except* Exception:  # noqa: BLE001 - a defect of ours: told in the log's own form, and the process ends
        _log.critical("%s ends by a defect", name, exc_info=True)
    return status


def config_argument(name: str, description: str) -> Path | None:
    """The value of `--config`, the one argument that every service takes; `CUTOVER_CONFIG` where it is not given."""
    parser = argparse.ArgumentParser(prog=f"python -m {name}", description=description)
    parser.add_argument(
        "--config",
        type=Path,
        default=os.environ.get("CUTOVER_CONFIG"),
        metavar="FILE",
        help="the configuration (TOML); CUTOVER_SECTION_KEY in the environment overrides a key of it",
    )
    file: Path | None = parser.parse_args().config
    return file


def plain_lines(text: str) -> str:
    """Text of our own that has lines, with whatever else stands in them written out."""
    return "\n".join(plain(line) for line in text.split("\n"))


async def _serve(name: str, service: Service, config: Config) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _ask_to_stop, name, stop, number)
    async with supervisor.supervising(os.environ):
        status = await service(config, stop)
    _log.info("%s has stopped", name)
    return status


def _leaves(group: BaseExceptionGroup[Refused]) -> Iterator[Refused]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each


def _ask_to_stop(name: str, stop: asyncio.Event, number: signal.Signals) -> None:
    if stop.is_set():
        _log.info("%s is stopping already", name)
        return
    _log.info("%s stops on %s", name, number.name)
    supervisor.stopping(f"It stops on {number.name}.")
    stop.set()
