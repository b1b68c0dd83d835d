"""The page in a real browser: what a person sees and can do, with one migration, twenty and five hundred.

One browser for all; pictures of the screen are left in the folder that PAGE_PICTURES names, for people to look at.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from services.monitoring.access import Access
from services.monitoring.commanding import Commanding
from services.monitoring.picture import Link
from services.monitoring.web import Operator
from shared.bus.interface import ServiceInstance
from shared.messages.control import CommandReply
from shared.messages.status import HostView, MigrationStatus, UnlistedMigration
from shared.migration.condition import JournalCondition
from shared.migration.devices import Side
from shared.migration.states import State
from tests.support.page import DESKTOP, PHONE, Page, browser, look_like, page_of
from tests.support.records import state_record
from tests.support.staged import history, status, text, view

PATIENCE_S = 20.0
TOKEN = "the-access-token-of-this-test-0123456789"
HERE = ServiceInstance(name="", instance_id="1", metadata={"host": "vm", "run": "3"})
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with browser(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


def until(driver: webdriver.Chrome, holds: Callable[[], object]) -> None:
    WebDriverWait(driver, PATIENCE_S, poll_frequency=0.05).until(lambda _driver: holds())


def shown(driver: webdriver.Chrome, selector: str) -> str:
    return str(driver.find_element(By.CSS_SELECTOR, selector).get_property("innerText"))


def opened(driver: webdriver.Chrome, page: Page, rest: str = "") -> None:
    """Open the page, and wait until it has drawn what it was told."""
    driver.get("about:blank")
    driver.get(page.url + rest)
    until(
        driver,
        lambda: driver.execute_script(
            "return document.body.dataset.live === 'live' && document.body.dataset.drawn > 0"
        ),
    )


def until_details(driver: webdriver.Chrome, name: str) -> None:
    until(
        driver,
        lambda: (
            shown(driver, ".head .name") == name and driver.find_elements(By.CSS_SELECTOR, ".story-title")
        ),
    )


def keep_picture(driver: webdriver.Chrome, name: str) -> None:
    if folder := os.environ.get("PAGE_PICTURES"):
        driver.save_screenshot(str(Path(folder) / f"{name}.png"))


def overflow(driver: webdriver.Chrome) -> int:
    return int(
        driver.execute_script(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
    )


def console(driver: webdriver.Chrome) -> list[dict[str, Any]]:
    """What the browser has said since it was last asked."""
    return list(driver.get_log("browser"))  # type: ignore[no-untyped-call]


@pytest.fixture(autouse=True)
def _nothing_is_wrong_in_the_console(driver: webdriver.Chrome) -> Iterator[None]:
    console(driver)
    yield
    said = [entry["message"] for entry in console(driver) if entry["level"] == "SEVERE"]
    assert not [message for message in said if "net::ERR_" not in message and "status of 403" not in message]


@pytest.mark.parametrize("count", [1, 20, 500])
def test_page_fits_every_screen(driver: webdriver.Chrome, count: int) -> None:
    with page_of(count) as (page, world):
        for _ in range(5):
            page.tell(world.go_on)
        for size, kind in ((DESKTOP, "desktop"), (PHONE, "phone")):
            look_like(driver, size, dark=False)
            opened(driver, page)
            if size == DESKTOP or count == 1:
                until(driver, lambda: driver.find_elements(By.CSS_SELECTOR, ".story-title"))
            for dark in (False, True):
                look_like(driver, size, dark=dark)
                assert overflow(driver) <= 0
                assert (
                    len(driver.find_elements(By.CSS_SELECTOR, "[role=option]")) <= 40
                )  # those that can be seen
                ground = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
                assert (int(ground.split("(")[1].split(",")[0]) < 100) is dark
                keep_picture(driver, f"{count}-{kind}-{'dark' if dark else 'light'}")
        words = "1 migration" if count == 1 else f"{count} migrations"
        assert shown(driver, "#summary").startswith(words)


def test_migration_is_told_at_a_glance(driver: webdriver.Chrome) -> None:
    look_like(driver, DESKTOP, dark=False)
    with page_of(1) as (page, world):
        page.tell(world.go_on)
        opened(driver, page)
        until_details(driver, "vol1")
        assert "syncing" in shown(driver, ".badges")
        assert "error flag set" in shown(driver, ".badges")
        assert "IOPS" in shown(driver, ".figures")
        here = driver.find_element(By.CSS_SELECTOR, ".diagram .here")
        assert here.get_attribute("data-state") == "syncing"
        assert driver.find_element(By.CSS_SELECTOR, ".arrow.gone").get_attribute("data-triggers") == "sync"
        assert "being copied" in str(driver.find_element(By.CSS_SELECTOR, ".map").get_attribute("aria-label"))
        assert "Attempt 1 began" in shown(driver, ".stories")
        assert "host vm" in shown(driver, "#running")
        # And goes on without being asked.
        copied = view("vol1", State.SOURCE_SELECTED, at=world.at, decision=9)
        record = state_record(
            state=State.SOURCE_SELECTED,
            trigger="copied",
            uuid=copied.uuid,
            decision=9,
            index=4,
            recorded_at=text(world.at),
        )
        page.tell(lambda: page.picture.told_record(record))
        page.tell(lambda: page.picture.told_progress(copied, world.at.timestamp()))
        until(driver, lambda: "source-selected" in shown(driver, ".badges"))
        until(driver, lambda: "Copied" in shown(driver, ".stories"))
        assert "Copied" in shown(driver, "#feed")


def test_keyboard_leads_everywhere(driver: webdriver.Chrome) -> None:
    look_like(driver, DESKTOP, dark=False)
    with page_of(500) as (page, _world):
        opened(driver, page)
        until(driver, lambda: shown(driver, ".head .name"))
        body = driver.find_element(By.TAG_NAME, "body")
        first = shown(driver, ".head .name")
        body.send_keys("j")
        until(driver, lambda: shown(driver, ".head .name") != first)
        body.send_keys("k")
        until(driver, lambda: shown(driver, ".head .name") == first)
        body.send_keys(Keys.END)
        until(driver, lambda: "vm-disk" in shown(driver, ".head .name"))
        last = driver.find_element(By.CSS_SELECTOR, "[aria-selected=true]")
        assert last.get_attribute("aria-posinset") == last.get_attribute("aria-setsize") == "500"
        box = driver.find_element(By.ID, "list")
        assert box.get_attribute("aria-activedescendant") == last.get_attribute("id")
        body.send_keys("/")
        driver.switch_to.active_element.send_keys("orders-db-002")
        until(driver, lambda: len(driver.find_elements(By.CSS_SELECTOR, "[role=option]")) == 1)
        driver.switch_to.active_element.send_keys(Keys.ENTER)
        until_details(driver, "orders-db-002")
        assert driver.switch_to.active_element == box
        box.send_keys(Keys.ENTER)
        assert driver.switch_to.active_element.get_attribute("id") == "detail"
        driver.switch_to.active_element.send_keys(Keys.ESCAPE)
        assert driver.switch_to.active_element == box
        box.send_keys("?")
        until(driver, lambda: driver.find_element(By.ID, "keys").is_displayed())
        driver.switch_to.active_element.send_keys(Keys.ESCAPE)
        until(driver, lambda: not driver.find_element(By.ID, "keys").is_displayed())


def test_phone_shows_the_list_or_one_migration(driver: webdriver.Chrome) -> None:
    look_like(driver, PHONE, dark=False)
    with page_of(20) as (page, _world):
        opened(driver, page)
        assert not driver.find_element(By.ID, "detail").is_displayed()
        driver.find_element(By.CSS_SELECTOR, "[role=option]").click()
        until(driver, lambda: driver.find_element(By.CSS_SELECTOR, ".head .name").is_displayed())
        assert not driver.find_element(By.ID, "list").is_displayed()
        assert overflow(driver) <= 0
        keep_picture(driver, "20-phone-one")
        driver.back()
        until(driver, lambda: driver.find_element(By.ID, "list").is_displayed())


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("before", [PHONE, (844, 390), DESKTOP])
def test_phone_shows_in_the_diagram_where_a_migration_is(
    driver: webdriver.Chrome, state: State, before: tuple[int, int]
) -> None:
    """The diagram is wider than the screen. When a phone was turned, the current state was cut, or not to be seen at all."""
    look_like(driver, before, dark=False)
    with page_of(1) as (page, world):
        told = view("vol1", state, at=world.at, decision=9)
        page.tell(lambda: page.picture.told_progress(told, world.at.timestamp()))
        opened(driver, page)
        until(driver, lambda: driver.find_elements(By.CSS_SELECTOR, f".diagram .here[data-state={state}]"))
        look_like(driver, PHONE, dark=False)
        driver.execute_script("document.querySelector('.diagram').scrollIntoView({block: 'center'})")
        until(driver, lambda: is_whole_in_sight(driver, ".diagram .here rect"))
        keep_picture(driver, f"phone-diagram-{state}")


def is_whole_in_sight(driver: webdriver.Chrome, selector: str) -> bool:
    """Whether nothing of it is cut at the sides of what it is scrolled in."""
    return bool(
        driver.execute_script(
            "const at = document.querySelector(arguments[0]), holder = at.closest('.diagram-holder');"
            "const [a, b] = [at, holder].map((each) => each.getBoundingClientRect());"
            "return a.width > 0 && a.left >= b.left && a.right <= b.right;",
            selector,
        )
    )


def test_what_is_old_says_so_and_comes_back_by_itself(driver: webdriver.Chrome) -> None:
    look_like(driver, DESKTOP, dark=False)
    with page_of(1) as (page, world):
        opened(driver, page)
        away = Link(is_connected=False, since=world.at.timestamp(), url="nats://127.0.0.1:4222")
        page.tell(lambda: page.picture.told_link(away))
        until(driver, lambda: "NATS away" in shown(driver, "#live"))
        assert "what is shown is as it was then" in shown(driver, "#alarm")
        assert "syncs, then acknowledges" not in shown(driver, "#running")
        assert "grayscale" in driver.execute_script(
            "return getComputedStyle(document.querySelector('.one')).filter"
        )
        keep_picture(driver, "nats-away")
        page.tell(world.tell)
        until(driver, lambda: shown(driver, "#live") == "Live")
        port = page.stop_serving()
        until(driver, lambda: "No connection" in shown(driver, "#live"))
        assert "monitoring service does not answer" in shown(driver, "#alarm")
        with page_of(2, port=port):
            until(driver, lambda: shown(driver, "#live") == "Live")
            until(driver, lambda: shown(driver, "#summary").startswith("2 migrations"))


def test_foreign_text_stays_text(driver: webdriver.Chrome) -> None:
    look_like(driver, DESKTOP, dark=False)
    with page_of(1) as (page, world):
        told = status(world.views[0], warnings=(EVIL,), host_error=EVIL, source=EVIL)
        page.tell(lambda: page.picture.told_status(told, world.at.timestamp() + 60))
        opened(driver, page)
        until(driver, lambda: EVIL in shown(driver, ".notices"))
        assert not driver.find_elements(By.CSS_SELECTOR, ".detail img")


class Bus:
    """Answers every question with the status of the staged migration, and notes the commands."""

    def __init__(self) -> None:
        self.present: MigrationStatus | None = None
        self.sent: list[tuple[str, Any]] = []

    async def request(self, subject: str, payload: object, reply: type, *, timeout_s: float) -> Any:
        if reply is MigrationStatus:
            return self.present
        self.sent.append((subject, payload))
        return CommandReply(
            name="vol1", uuid="u", state=State.SETUP, authority=Side.SOURCE, attempt=1, decision=5
        )

    async def publish(self, subject: str, payload: object) -> None:
        raise AssertionError


def test_operator_logs_in_and_is_asked_before_a_command(driver: webdriver.Chrome) -> None:
    look_like(driver, DESKTOP, dark=False)
    bus = Bus()
    commanding = Commanding(bus)
    with page_of(1, Operator(access=Access(TOKEN, lambda: 0.0), commanding=lambda: commanding)) as (
        page,
        world,
    ):
        bus.present = status(world.views[0])
        opened(driver, page)
        until_details(driver, "vol1")
        assert not driver.find_elements(By.CSS_SELECTOR, ".commands button")
        login = driver.find_element(By.ID, "login")
        until(driver, login.is_displayed)
        login.click()
        field = driver.find_element(By.CSS_SELECTOR, "#token input")
        field.send_keys("guessed", Keys.ENTER)
        until(driver, lambda: "not the access token" in shown(driver, "#token .error"))
        field.clear()
        field.send_keys(TOKEN, Keys.ENTER)
        until(driver, lambda: driver.find_elements(By.CSS_SELECTOR, ".commands [data-command=abort]"))
        driver.find_element(By.CSS_SELECTOR, ".commands [data-command=abort]").click()
        question = driver.find_element(By.ID, "question")
        until(driver, question.is_displayed)
        assert "counts for nothing any more" in shown(driver, "#question")
        assert "cannot be undone" in shown(driver, "#question")
        assert "Cancel" in driver.switch_to.active_element.text  # a hasty Enter does no harm
        keep_picture(driver, "question")
        driver.switch_to.active_element.send_keys(Keys.ENTER)
        until(driver, lambda: not question.is_displayed())
        assert not bus.sent
        driver.find_element(By.CSS_SELECTOR, ".commands [data-command=abort]").click()
        until(driver, question.is_displayed)
        driver.find_element(By.CSS_SELECTOR, "#question .go").click()
        until(driver, lambda: "vol1: setup" in shown(driver, "#toast"))
        assert [subject for subject, _ in bus.sent] == ["cutover.control.abort.vol1"]


@pytest.mark.parametrize("count", [1, 20])
@pytest.mark.parametrize("width", [1000, 1280, 1366, 1440, 1920])
def test_state_diagram_is_whole_on_a_desktop(driver: webdriver.Chrome, count: int, width: int) -> None:
    """Cause: between list and events a window of 1280 leaves less than the diagram needs. Failing, it ends in a scrollbar."""
    look_like(driver, (width, 900), dark=False)
    with page_of(count) as (page, _world):
        opened(driver, page)
        until(driver, lambda: driver.find_elements(By.CSS_SELECTOR, ".story-title"))
        cut = "const d = document.querySelector('.diagram-holder'); return d.scrollWidth - d.clientWidth"
        assert driver.execute_script(cut) <= 0
        assert overflow(driver) <= 0
        keep_picture(driver, f"{count}-{width}")


def test_service_that_does_not_answer_is_told_at_the_top(driver: webdriver.Chrome) -> None:
    """Cause: the top told of the connection to NATS alone. Failing, it says «Live» while nobody can give a command."""
    look_like(driver, DESKTOP, dark=False)
    with page_of(1) as (page, world):
        opened(driver, page)
        assert shown(driver, "#live") == "Live"
        answering = {
            "cutover-fault-recording": (HERE,),
            "cutover-state-control": (),
            "cutover-startup": (HERE,),
            "cutover-write-cloning": (HERE,),
        }
        page.tell(lambda: page.picture.told_instances(answering, world.at.timestamp()))
        until(driver, lambda: shown(driver, "#live") == "state_control does not answer")
        assert "Commands are refused" in shown(driver, "#alarm")
        keep_picture(driver, "service-away")
        page.tell(
            lambda: page.picture.told_instances(
                answering | {"cutover-state-control": (HERE,)}, world.at.timestamp()
            )
        )
        until(driver, lambda: shown(driver, "#live") == "Live")


def test_host_that_does_not_answer_is_not_said_to_serve_nothing(driver: webdriver.Chrome) -> None:
    """Cause: what was not known was shown as none. Failing, the page tells 0 IOPS of a host that serves without NATS."""
    look_like(driver, DESKTOP, dark=False)
    with page_of(2) as (page, world):
        first = world.views[0]
        page.tell(world.go_on)
        opened(driver, page, f"#/{first.name}")
        until_details(driver, first.name)
        heard = world.at.timestamp()
        away = {
            "cutover-fault-recording": (HERE,),
            "cutover-state-control": (HERE,),
            "cutover-startup": (HERE,),
        }
        page.tell(lambda: page.picture.told_instances(away, heard + 4))
        page.tell(lambda: page.picture.passed(heard + 4))
        for told in world.views:
            answer = status(told, host_error="its host is away", host_answers=False)
            page.tell(partial(page.picture.told_status, answer, heard + 5))
        until(driver, lambda: "do not answer" in shown(driver, "#live"))
        assert "is not known from here" in shown(driver, "#alarm")
        assert "cannot be reached" not in shown(driver, "#alarm")
        until(driver, lambda: "Application\nnot known" in shown(driver, ".figures"))
        assert "IOPS" not in shown(driver, ".figures")
        assert "0" not in shown(driver, ".charts .value b")
        for chart in driver.find_elements(By.CSS_SELECTOR, ".charts .value b"):
            assert chart.get_property("innerText") == "not known"
        facts = shown(driver, ".facts")
        assert "Volume\nnot known" in facts
        assert "Clients\nnot known" in facts
        assert "host away" in shown(driver, f"#row-{first.name}")
        keep_picture(driver, "host-away")
        nobody_s = unlisted(view("nobody-s"), JournalCondition.UNREADABLE, host_error="It is nobody's.")
        nobody_s = replace(nobody_s, host="", host_answers=False)
        page.tell(lambda: page.picture.told_unlisted(nobody_s, heard + 6))
        until(driver, lambda: driver.find_elements(By.ID, "row-nobody-s"))
        assert "host not known" in shown(driver, "#row-nobody-s")


def test_diagram_shows_the_way_of_the_present_attempt(driver: webdriver.Chrome) -> None:
    """Failing, arrows of an attempt that was given up long ago are as bold as those of this one."""
    look_like(driver, DESKTOP, dark=False)
    with page_of(1) as (page, world):
        told = view("vol1", State.SOURCE_SELECTED, at=world.at, attempt=2, decision=9)
        first = [*history(view("vol1", State.TARGET_SELECTED, at=world.at))]
        way = (
            (State.SETUP, "abort", 1), (State.SYNCING, "sync", 2), (State.SOURCE_SELECTED, "copied", 2),
        )  # fmt: skip
        again = [
            state_record(
                str(at),
                state,
                trigger=trigger,
                attempt=attempt,
                devices=None,
                uuid=told.uuid,
                index=len(first) + at,
            )
            for at, (state, trigger, attempt) in enumerate(way, 1)
        ]
        page.tell(lambda: page.picture.told_progress(told, world.at.timestamp()))
        page.tell(lambda: page.picture.told_history("vol1", [*first, *again], is_whole=True))
        opened(driver, page)
        until_details(driver, "vol1")
        # The history is told after the rest, and where the machine is busy drawn after it.
        until(driver, lambda: _triggers_of(driver, ".arrow.gone") == ["sync", "copied"])
        assert len(driver.find_elements(By.CSS_SELECTOR, ".diagram .been")) == 2
        room = driver.execute_script(
            "const here = document.querySelector('.diagram .here');"
            "return here.querySelector('rect').getBBox().width - here.querySelector('text').getBBox().width"
        )
        assert room >= 16, "its name touches the edges of its pill"
        keep_picture(driver, "second-attempt")


def _triggers_of(driver: webdriver.Chrome, selector: str) -> list[str | None]:
    return [each.get_attribute("data-triggers") for each in driver.find_elements(By.CSS_SELECTOR, selector)]


def unlisted(
    told: HostView, condition: JournalCondition, *, host_error: str | None = None
) -> UnlistedMigration:
    return UnlistedMigration(
        name=told.name,
        uuid=told.uuid,
        journal_condition=condition,
        state=told.state if host_error is None else None,
        attempt=told.attempt,
        authority=told.authority,
        host=told.host,
        host_answers=True,
        host_error=host_error,
        source="/a",
        target="/b",
        export_uri=None,
        warnings=("What it is.",),
        view=told if host_error is None else None,
        as_of=told.at,
    )


def test_journal_that_has_lost_a_migration_is_told_where_that_is_shown(driver: webdriver.Chrome) -> None:
    look_like(driver, DESKTOP, dark=False)
    with page_of(20) as (page, world):
        opened(driver, page)
        told = world.views[0]
        lost = unlisted(told, JournalCondition.UNKNOWN)
        page.tell(lambda: page.picture.told_unlisted(lost, world.at.timestamp() + 1))
        opened(driver, page, f"#/{told.name}")
        until(driver, lambda: "the journal does not know it" in shown(driver, ".badges"))
        assert "witness and journal agree" not in shown(driver, ".badges")
        assert "What it is." in shown(driver, ".notices")
        row = driver.find_element(By.ID, f"row-{told.name}")
        assert "attention" in str(row.get_attribute("class"))
        assert "journal does not know it" in str(row.get_property("innerText"))
        keep_picture(driver, "journal-lost")
        closed = unlisted(told, JournalCondition.NEWER_VERSION, host_error="It holds a record of version 99.")
        page.tell(lambda: page.picture.told_unlisted(closed, world.at.timestamp() + 2))
        until(driver, lambda: "closed" in shown(driver, ".badges"))
        assert "the journal is of a newer version" in shown(driver, ".badges")
        assert "It holds a record of version 99." in shown(driver, ".notices")
        assert "100 %" not in shown(driver, ".figures")
        keep_picture(driver, "journal-newer")
