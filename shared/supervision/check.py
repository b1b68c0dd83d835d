"""`python -m shared.supervision.check [SOCKET]`: exit status 0 when the process that answers there is well, with its sentence.

For the health checks of containers, which run it all the time: it takes nothing but the standard library, and so a
twentieth of a second. Without an argument the socket is the one that CUTOVER_HEALTH_SOCKET names.
"""

import os
import socket
import sys

TIMEOUT_S = 3.0
_LINE_BYTES_MAX = 4096


def ask(path: str) -> tuple[bool, str]:
    """Whether it is well, and a sentence; an unanswered question means that it is not."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(TIMEOUT_S)
            asking.connect(path)
            answer = b""
            while len(answer) < _LINE_BYTES_MAX and (part := asking.recv(_LINE_BYTES_MAX)):
                answer += part
    except OSError as error:
        return False, f"Nobody answers at {path}: {error}."
    word, _, sentence = answer.decode(errors="replace").strip().partition(" ")
    return word == "ok", sentence or f"What answers at {path} says nothing."


def main() -> int:
    """The exit status."""
    path = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("CUTOVER_HEALTH_SOCKET", "")
    if not path:
        sys.stderr.write("usage: python -m shared.supervision.check [SOCKET], or CUTOVER_HEALTH_SOCKET\n")
        return 2
    is_ok, sentence = ask(path)
    sys.stdout.write(f"{sentence}\n")
    return 0 if is_ok else 1


if __name__ == "__main__":
    sys.exit(main())
