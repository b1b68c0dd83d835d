"""The page over a staged world, served in the test's own process, and a browser to look at it."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from services.monitoring.browsers import Browsers
from services.monitoring.picture import Picture
from services.monitoring.serving import Place, serving
from services.monitoring.wall import Wall
from services.monitoring.web import Operator, application
from shared.clock import SystemClock
from tests.support.staged import World

DRIVER = "/usr/bin/chromedriver"
BROWSER = "/usr/bin/chromium"
PHONE = (390, 844)
DESKTOP = (1440, 1000)


class Page:
    """One served page. The picture is its loop's: `tell` has it changed there."""

    def __init__(self) -> None:
        self.url = ""
        self.picture = Picture("staged")
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready: Future[str] = Future()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self, operator: Operator | None = None, port: int = 0) -> None:
        self._operator = operator
        self._port = port
        self._thread.start()
        self.url = self._ready.result(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        browsers = Browsers(self.picture, Wall(SystemClock()))
        self.picture.on_change(browsers.wake)
        app = application(self.picture, browsers, self._operator, loopback_only=True)
        async with serving(app, Place("127.0.0.1", self._port), browsers.close) as url:
            self._ready.set_result(url)
            await self._stop.wait()

    def tell(self, change: Callable[[], object]) -> None:
        """Change the picture, in its own loop."""
        done: Future[None] = Future()

        def do() -> None:
            change()
            done.set_result(None)

        self._loop.call_soon_threadsafe(do)
        done.result(10)

    def stop_serving(self) -> int:
        """Stop, as the service would; returns the port, for another."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)
        return int(self.url.rstrip("/").rpartition(":")[2])


@contextmanager
def page_of(count: int, operator: Operator | None = None, *, port: int = 0) -> Iterator[tuple[Page, World]]:
    """A page that shows so many migrations."""
    page = Page()
    page.start(operator, port)
    try:
        world = World(page.picture, count, datetime.now(UTC))
        page.tell(world.tell)
        yield page, world
    finally:
        page.stop_serving()


@contextmanager
def browser(profile: Path) -> Iterator[webdriver.Chrome]:
    """One headless Chromium."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage",
        "--no-first-run", "--disable-extensions", "--disable-background-networking", f"--user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def look_like(driver: webdriver.Chrome, size: tuple[int, int], *, dark: bool) -> None:
    """A screen of this size, with this scheme of colours, for someone who wants nothing to move."""
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [
        {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
