"""Serves volumes in memory until SIGTERM: a process of its own, for judges that start or outlive one.

    python -m tests.integration.export.serve [--socket PATH | --port N [--tls FOLDER]] [--null] [--alignment N] NAME=SIZE...

Without either it serves the sockets that it inherited (LISTEN_FDS). The folder has the files that `tests.support.certificates`
writes.
"""

import argparse
import asyncio
import cProfile
import os
import signal
import sys
from pathlib import Path

import uvloop

from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.export.listener import inherited_listeners, listen_tcp, listen_unix
from services.write_cloning.export.server import ExportServer
from services.write_cloning.export.tls import Tls
from shared.clock import SystemClock
from shared.tls.files import TlsFiles
from tests.integration.export.memory_volume import MemoryVolume, NullVolume


async def serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    make = NullVolume if options.null else MemoryVolume
    async with ExportServer(SystemClock()) as server:
        for name, _, size in (export.partition("=") for export in options.exports):
            server.add(
                name, make(int(size), options.alignment), BufferPool(), description=f"memory of {name}"
            )
        if options.socket is not None:
            server.listen(listen_unix(options.socket))
        elif options.port is not None:
            server.listen(listen_tcp("127.0.0.1", options.port), _tls(options.tls))
        else:
            for listener in inherited_listeners(os.environ, os.getpid()):
                server.listen(listener)
        print("ready", file=sys.stderr, flush=True)
        await stop.wait()


def _tls(folder: Path | None) -> Tls | None:
    if folder is None:
        return None
    files = TlsFiles(
        certificate=folder / "server.pem", key=folder / "server.key", client_ca=folder / "ca.pem"
    )
    return Tls(files, SystemClock())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=Path)
    parser.add_argument("--port", type=int)
    parser.add_argument("--tls", type=Path)
    parser.add_argument("--null", action="store_true")
    parser.add_argument("--alignment", type=int, default=1)
    parser.add_argument("--profile", type=Path)
    parser.add_argument("exports", nargs="+")
    options = parser.parse_args()
    if options.profile:
        with cProfile.Profile() as profile:
            uvloop.run(serve(options))
        profile.dump_stats(options.profile)
    else:
        uvloop.run(serve(options))


if __name__ == "__main__":
    main()
