"""The little of QEMU's monitor protocol that a mirror needs, over a daemon's standard input and output."""

import json
from typing import IO, Any

Message = dict[str, Any]


class Monitor:
    """One monitor. It is talked to by one caller at a time; events that come in between are kept."""

    def __init__(self, replies: IO[bytes], commands: IO[bytes]) -> None:
        """Take the greeting, which is the daemon's sign that it has done all that its command line says."""
        self._replies = replies
        self._commands = commands
        self._events: list[Message] = []
        self._receive()
        self.call("qmp_capabilities")

    def call(self, command: str, **arguments: object) -> object:
        """Execute a command and return its result.

        Raises:
            RuntimeError: the daemon refused, or ended.
        """
        request = {
            "execute": command,
            "arguments": {key.replace("_", "-"): arguments[key] for key in arguments},
        }
        self._commands.write(json.dumps(request).encode() + b"\n")
        self._commands.flush()
        while "event" in (reply := self._receive()):
            self._events.append(reply)
        if "error" in reply:
            raise RuntimeError(f"{command}: {reply['error']['desc']}")
        result: object = reply["return"]
        return result

    def wait_for(self, event: str) -> Message:
        """The next event of this name; others are dropped.

        Raises:
            RuntimeError: the daemon ended, or a job failed first.
        """
        while True:
            message = self._events.pop(0) if self._events else self._receive()
            name = message.get("event")
            if name == event:
                return message
            if name in {"BLOCK_JOB_ERROR", "BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED"}:
                raise RuntimeError(f"no {event}: {message}")

    def _receive(self) -> Message:
        line = self._replies.readline()
        if not line:
            raise RuntimeError("the daemon has closed its monitor")
        message: Message = json.loads(line)
        return message
