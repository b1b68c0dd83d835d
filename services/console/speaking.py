"""How `cutover up` tells of its services: in sentences, or as lines of their log where that is JSON: one reader takes all."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shared.config.model import HostConfig, LogConfig
from shared.logs.handler import logging_to_stderr

_log = logging.getLogger(__name__)

Tell = Callable[[str], None]


@contextmanager
def speaking(config: LogConfig, host: HostConfig, tell: Tell) -> Iterator[Tell]:
    """`tell` itself, or what takes its place for as long as the context is open."""
    if config.format == "text":
        yield tell
        return
    with logging_to_stderr(config, "up", host=host.name):
        yield lambda sentence: _log.warning("%s", sentence)
