"""The monitoring service beside the real system, and a browser's side of its stream: what it has been told so far."""

import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.acceptance.system.whole_system import ROOT, System

PATIENCE_S = 30.0
Json = dict[str, Any]


class Watcher:
    """One stream, followed in a thread."""

    def __init__(self, url: str, migration: str = "") -> None:
        self.rows: dict[str, Json] = {}
        self.events: list[Json] = []
        self.around: Json = {}
        self.detail: Json = {}
        self._news = threading.Condition()
        self._stream = urllib.request.urlopen(f"{url}events?migration={migration}", timeout=PATIENCE_S)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        for line in self._stream:
            if line.startswith(b"data: "):
                with self._news:
                    self._take(json.loads(line[6:]))
                    self._news.notify_all()

    def _take(self, frame: Json) -> None:
        if frame["whole"]:
            self.rows.clear()
        for name in frame["gone"]:
            self.rows.pop(name, None)
        self.rows |= {row["name"]: row for row in frame["rows"]}
        self.events += frame["events"]
        self.around = frame.get("around", self.around)
        self.detail = frame.get("detail", self.detail)

    def until(self, holds: Callable[[], object], what: str) -> None:
        """Wait until what was told says so."""
        end = time.monotonic() + PATIENCE_S
        with self._news:
            while not _holds(holds):
                assert self._news.wait(end - time.monotonic()), f"not told: {what}; {self.rows} {self.around}"

    def titles(self) -> list[str]:
        """Of the stories of the migration that is looked at."""
        return [story["title"] for story in self.detail.get("stories") or ()]


def _holds(holds: Callable[[], object]) -> bool:
    try:
        return bool(holds())
    except KeyError:
        return False


class Monitoring:
    """The service as a process."""

    def __init__(self, system: System, *lines: str, like: Path | None = None) -> None:
        """`lines` are of its section of the configuration."""
        self._log = system.folder / "monitoring.log"
        self._log.write_bytes(b"")
        config = system.folder / "monitoring.toml"
        text = (like or system.config).read_text().partition("[monitoring]")[0]
        section = "\n".join(("[monitoring]", 'listen = "127.0.0.1:0"', *lines))
        config.write_text(f"{text}\n{section}\n")
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.monitoring", "--config", str(config)],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def said(self, pattern: str) -> str:
        """What its log says, once it does. A log is a file, which tells nobody that it grows."""
        end = time.monotonic() + PATIENCE_S
        while (found := re.search(pattern, self._log.read_text())) is None:
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < end, self._log.read_text()
            time.sleep(0.02)
        return found[1]

    def log(self) -> str:
        return self._log.read_text()

    @property
    def url(self) -> str:
        return self.said(r"the page is at (\S+)")

    def metrics(self) -> dict[str, float]:
        """Every sample by its name and labels, as they stand in the text."""
        with urllib.request.urlopen(f"{self.url}metrics", timeout=PATIENCE_S) as answer:
            lines = answer.read().decode().splitlines()
        samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(PATIENCE_S)


@contextmanager
def monitored(system: System, *lines: str, config: Path | None = None) -> Iterator[Monitoring]:
    """The service while the context is open; its stop has to be clean."""
    monitoring = Monitoring(system, *lines, like=config)
    try:
        yield monitoring
        assert monitoring.stop() == 0
    finally:
        monitoring.process.kill()
        monitoring.process.wait()


class Posted:
    """An answer, and the cookie that came with it."""

    def __init__(self, body: object, cookie: str) -> None:
        self.body: dict[str, str] = body  # type: ignore[assignment]
        self.cookie = cookie


def post(url: str, body: object, origin: str, **headers: str) -> Posted:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Origin": origin, **headers})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return Posted(json.loads(answer.read()), (answer.headers["set-cookie"] or "").partition(";")[0])


def logged_in(monitoring: Monitoring) -> tuple[str, dict[str, str]]:
    """The page's origin, and the headers of a browser that has shown the access token."""
    origin = monitoring.url.rstrip("/")
    token = Path(monitoring.said(r"access token in (\S+)")).read_text().strip()
    answer = post(f"{origin}/login", {"token": token}, origin)
    return origin, {"Cookie": answer.cookie, "X-Cutover-CSRF": answer.body["csrf"]}
