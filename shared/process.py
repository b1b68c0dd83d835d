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
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import uvloop

from shared.config.load import ConfigError, load
from shared.config.model import Config
from shared.migration.refusals import Refusal

_log = logging.getLogger(__name__)

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2

Service = Callable[[Config, asyncio.Event], Awaitable[int]]
"""Serves until the event is set, then stops in order; returns the exit status."""


def run_service(name: str, description: str, service: Service) -> int:
    """Run a service's process from its command line to its exit status."""
    try:
        config = load(config_argument(name, description), os.environ)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_USAGE
    set_up_logging()
    status = EXIT_FAILED
    try:
        status = uvloop.run(_serve(name, service, config))
    except* Refusal as refusals:  # a sentence for the operator, not a defect of ours
        for refusal in _leaves(refusals):
            _log.error("%s stops: %s", name, refusal)
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


def set_up_logging() -> None:
    """To standard error, with the time in UTC."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter(
        "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


async def _serve(name: str, service: Service, config: Config) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _ask_to_stop, name, stop, number)
    status = await service(config, stop)
    _log.info("%s has stopped", name)
    return status


def _leaves(group: BaseExceptionGroup[Refusal]) -> Iterator[Refusal]:
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
    stop.set()
