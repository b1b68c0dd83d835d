"""A line of the log for each command that was given: what became of it. Questions are not told of."""

import logging

from shared.bus.interface import Handler
from shared.logs.about import about
from shared.messages.control import CommandReply
from shared.migration.refusals import Refusal

_log = logging.getLogger(__name__)


def told(command: str, handler: Handler) -> Handler:
    """The same handler, whose outcome is told."""

    async def handle(name: str, request: object) -> object:
        try:
            reply = await handler(name, request)
        except Refusal as refusal:
            _log.info("%s is refused: %s: %s", command, refusal.code, refusal.message, extra=about(name))
            raise
        if isinstance(reply, CommandReply):
            where = reply.state or "removed"
            pending = "" if reply.journal else ", not in the journal yet"
            _log.info("%s is done: %s%s", command, where, pending, extra=about(name, reply.attempt))
        return reply

    return handle
