"""The metrics: what Prometheus is told, what its own checker says of it, and that alerts and dashboard name nothing else."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.monitoring.metrics import exposition
from services.monitoring.picture import Durability, Link, Picture
from shared.bus.interface import ServiceInstance
from shared.messages.control import ListReply
from shared.messages.host import HOST_SERVICE_NAME
from shared.messages.status import ApplicationErrorsView, HostView, RequestErrorView, UnlistedMigration
from shared.migration.condition import WORDS, JournalCondition
from shared.migration.devices import Side
from shared.migration.states import State
from tests.support.records import fault_record
from tests.support.staged import BEGAN, World, status, view

DOCS = Path(__file__).parents[3] / "docs/monitoring"
NOW = BEGAN.timestamp()


def scraped(picture: Picture) -> dict[str, dict[tuple[str, ...], float]]:
    """Every sample by its name and the values of its labels, in the order of their names."""
    content, kind = exposition(picture, "text/plain")
    assert kind.startswith("text/plain")
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(content.decode()):
        assert family.documentation, f"{family.name} says nothing of itself"
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(value for _, value in sorted(sample.labels.items()))] = (
                sample.value
            )
    return found


def told(count: int = 3) -> Picture:
    picture = Picture("e")
    world = World(picture, count, BEGAN)
    world.tell()
    world.go_on()
    return picture


def watched(*hosts: str) -> Picture:
    """Nothing is known but that NATS and these hosts answer."""
    picture = Picture("e")
    picture.told_link(Link(is_connected=True))
    instances = tuple(ServiceInstance(name="", instance_id=host, metadata={"host": host}) for host in hosts)
    picture.told_instances({HOST_SERVICE_NAME: instances}, NOW)
    return picture


def test_one_migration_is_told_in_base_units() -> None:
    picture = watched(view().host)
    picture.told_status(status(view()), NOW)
    picture.told_progress(
        view(application_reads=7, application_write_bytes=4096, journal_pending=True, rate_bytes_per_s=1.5),
        NOW,
    )
    told = scraped(picture)
    assert told["cutover_migration_state"]["syncing", "vol1"] == 1
    assert sum(told["cutover_migration_state"].values()) == 1
    assert told["cutover_error_flag"]["vol1",] == 1
    assert told["cutover_synced_bytes"]["vol1",] + told["cutover_remaining_bytes"]["vol1",] == 64 << 30
    assert told["cutover_copy_rate_bytes_per_second"]["vol1",] == 1.5
    assert told["cutover_application_operations_total"]["vol1", "read"] == 7
    assert told["cutover_application_bytes_total"]["vol1", "write"] == 4096
    assert told["cutover_journal_pending"]["vol1",] == 1
    assert told["cutover_last_progress_timestamp_seconds"]["vol1",] == NOW
    assert told["cutover_connections"]["vol1",] == 1


def test_faults_are_counted_by_side_and_the_attempt_s_alone() -> None:
    picture = Picture("e")
    picture.told_progress(view(attempt=2), NOW)
    for index, attempt in enumerate((1, 2), 1):
        fault = fault_record(str(index), uuid="uuid-of-vol1", attempt=attempt, detected_at=f"at {index}")
        picture.told_record(fault)
    told = scraped(picture)
    assert told["cutover_faults_total"]["vol1", "target"] == 2
    assert told["cutover_attempt_faults"]["vol1", "target"] == 1
    assert told["cutover_attempt_faults"]["vol1", "source"] == 0


TROUBLE = (
    "vol1: the application gets errors: 7 requests failed since T, the last at T: source read at 0: EIO."
)
ERROR = RequestErrorView(
    side=Side.SOURCE, operation="read", cause="EIO", errno=5, offset=0, length=4096, at="T"
)
ERRORS = ApplicationErrorsView(of_source=7, of_target=0, first=ERROR, last=ERROR)


def test_errors_of_the_application_are_counted_by_side() -> None:
    """A volume whose every request failed was open, its journal sound, and nothing else was told."""
    picture = watched(view().host)
    picture.told_status(status(view()), NOW)
    picture.told_progress(view(), NOW)
    told = scraped(picture)
    assert told["cutover_application_errors_total"] == {("vol1", "source"): 0, ("vol1", "target"): 0}
    assert told["cutover_application_troubled"]["vol1",] == 0
    picture.told_progress(view(application_errors=ERRORS, application_trouble=TROUBLE), NOW)
    told = scraped(picture)
    assert told["cutover_application_errors_total"] == {("vol1", "source"): 7, ("vol1", "target"): 0}
    assert told["cutover_application_troubled"]["vol1",] == 1


def test_closed_volume_has_no_figures_that_are_not_true() -> None:
    picture = watched(view().host)
    picture.told_progress(view(), NOW)
    picture.told_status(status(view(), host_error="It was not admitted.", host_answers=True), NOW + 1)
    told = scraped(picture)
    assert told["cutover_volume_open"]["vol1",] == 0
    assert told["cutover_migration_state"]["syncing", "vol1"] == 1
    assert "cutover_copy_rate_bytes_per_second" not in told


OF_THE_HOST = (
    "cutover_volume_open",
    "cutover_journal_sound",
    "cutover_journal_pending",
    "cutover_synced_bytes",
)


def test_volume_whose_host_does_not_answer_is_not_said_to_be_closed() -> None:
    """Cause: what was only not known was 0, as of a volume that is closed."""
    picture = watched(view().host)
    picture.told_progress(view(), NOW)
    picture.told_status(status(view(), host_error="its host is away", host_answers=False), NOW + 1)
    told = scraped(picture)
    assert not told.keys() & set(OF_THE_HOST)
    assert told["cutover_migration_state"]["syncing", "vol1"] == 1


def test_volume_that_only_state_control_has_told_of_is_open() -> None:
    """Cause: it counted as closed before its host told of progress, and as long as NATS was away after that."""
    picture = watched(view().host)
    picture.told_status(status(view()), NOW)
    assert scraped(picture)["cutover_volume_open"]["vol1",] == 1


@pytest.mark.parametrize("is_nats_away", [True, False])
def test_of_what_is_out_of_reach_nothing_is_said_that_may_have_changed(*, is_nats_away: bool) -> None:
    """Cause: a journal stayed sound and a volume open, or closed, for as long as NATS was away."""
    picture = watched(view().host)
    picture.told_status(status(view()), NOW)
    picture.told_progress(view(), NOW)
    assert set(OF_THE_HOST) <= scraped(picture).keys()
    if is_nats_away:
        picture.told_link(Link(is_connected=False))
    else:
        picture.told_instances({HOST_SERVICE_NAME: ()}, NOW + 9)
    told = scraped(picture)
    assert not told.keys() & set(OF_THE_HOST)
    assert told["cutover_last_progress_timestamp_seconds"]["vol1",] == NOW, "that stays true"


def test_host_that_has_answered_state_control_is_up() -> None:
    """Before services are looked for again, which is seconds later."""
    picture = watched()
    picture.told_status(status(view(), host_error="away", host_answers=False), NOW)
    assert "cutover_volume_open" not in scraped(picture)
    picture.told_status(status(view()), NOW + 1)
    told = scraped(picture)
    assert (told["cutover_volume_open"]["vol1",], told["cutover_host_up"][view().host,]) == (1, 1)


def test_what_is_wrong_with_a_journal_is_told_without_its_host() -> None:
    picture = watched()
    damaged = status(
        view(), journal_condition=JournalCondition.DAMAGED, host_answers=False, host_error="away"
    )
    picture.told_status(damaged, NOW)
    assert scraped(picture)["cutover_journal_sound"]["vol1",] == 0


def lost(told: HostView, condition: JournalCondition, host_error: str | None = None) -> UnlistedMigration:
    """A host's word of one of which the journal does not tell; with an error, of a closed one."""
    return UnlistedMigration(
        name=told.name,
        uuid=told.uuid,
        journal_condition=condition,
        state=None,
        attempt=None,
        authority=None,
        host=told.host,
        host_answers=True,
        host_error=host_error,
        source="/a",
        target="/b",
        export_uri=None,
        warnings=("Why.",),
        view=None if host_error else told,
        as_of=told.at,
    )


def test_migration_that_the_journal_has_yet_to_take_is_neither_recorded_nor_lost() -> None:
    """Cause: it was in no metric. The alert for a journal that has lost something wants one that is not sound."""
    picture = watched(view().host)
    untaken = view(journal_pending=True, journal_condition=JournalCondition.PENDING)
    picture.told_list(ListReply(unlisted=(lost(untaken, JournalCondition.PENDING),)), NOW, NOW)
    told = scraped(picture)
    assert (told["cutover_migration_recorded"]["vol1",], told["cutover_journal_sound"]["vol1",]) == (0, 1)
    assert (told["cutover_volume_open"]["vol1",], told["cutover_journal_pending"]["vol1",]) == (1, 1)


def test_migration_that_the_journal_has_lost_keeps_its_metrics() -> None:
    picture = watched(view().host)
    picture.told_list(ListReply(migrations=(status(view()),)), NOW, NOW)
    picture.told_progress(view(), NOW)
    assert scraped(picture)["cutover_journal_sound"]["vol1",] == 1
    reply = ListReply(unlisted=(lost(view(), JournalCondition.UNKNOWN),))
    picture.told_list(reply, asked_at=NOW + 1, now=NOW + 2)
    told = scraped(picture)
    assert (told["cutover_journal_sound"]["vol1",], told["cutover_migration_recorded"]["vol1",]) == (0, 0)
    assert told["cutover_volume_open"]["vol1",] == 1
    picture.told_list(ListReply(migrations=(status(view()),)), NOW + 3, NOW + 3)
    assert scraped(picture)["cutover_migration_recorded"]["vol1",] == 1


def test_volume_that_its_host_keeps_closed_is_closed_though_nothing_else_can_be_read() -> None:
    picture = watched(view().host)
    closed = lost(view(), JournalCondition.NEWER_VERSION, "It holds a record of version 99.")
    picture.told_list(ListReply(unlisted=(closed,)), NOW, NOW)
    told = scraped(picture)
    assert (told["cutover_volume_open"]["vol1",], told["cutover_journal_sound"]["vol1",]) == (0, 0)
    assert told["cutover_migration_recorded"]["vol1",] == 1
    assert "cutover_migration_state" not in told, "nobody has told of it"


def test_what_the_host_itself_finds_counts() -> None:
    picture = watched(view().host)
    picture.told_status(status(view()), NOW)
    picture.told_progress(view(journal_condition=JournalCondition.GONE_BACK), NOW + 1)
    assert scraped(picture)["cutover_journal_sound"]["vol1",] == 0
    picture.told_progress(view(journal_condition=None), NOW + 2)
    assert "cutover_journal_sound" not in scraped(picture), "a host of an earlier version does not say"


def test_end_of_the_server_s_certificate_is_told() -> None:
    picture = Picture("e")
    assert "cutover_nats_certificate_not_after_timestamp_seconds" not in scraped(picture)
    picture.told_certificate(NOW)
    assert scraped(picture)["cutover_nats_certificate_not_after_timestamp_seconds"][()] == NOW
    picture.told_link(Link(is_connected=False))
    assert "cutover_nats_certificate_not_after_timestamp_seconds" in scraped(picture), "it may be why"


def test_what_is_not_known_yet_is_not_told() -> None:
    picture = Picture("e")
    assert "cutover_journal_sync_always" not in scraped(picture)
    picture.told_durability(Durability(is_established=False, because="of something"))
    assert scraped(picture)["cutover_journal_sync_always"][()] == 0
    picture.told_link(Link(is_connected=False))
    assert "cutover_journal_sync_always" not in scraped(picture)


def test_label_cannot_break_out_of_its_line() -> None:
    picture = Picture("e")
    evil = 'x"} 1\ncutover_error_flag{migration="vol1'
    picture.told_status(replace(status(view()), source=evil), NOW)
    content, _ = exposition(picture, "")
    families = text_string_to_metric_families(content.decode())
    samples = [sample for family in families for sample in family.samples]
    labels = [sample.labels for sample in samples if sample.name == "cutover_migration_info"]
    assert labels[0]["source"] == evil


def named_in(text: str) -> set[str]:
    """The metrics that an expression names: not the labels of a state set, which are called like it."""
    without_labels = re.sub(r"\{[^{}]*\}|by \([^()]*\)|on \([^()]*\)", "", text)
    return set(re.findall(r"\bcutover_[a-z_]+", without_labels))


def exposed() -> set[str]:
    picture = told(20)
    picture.told_record(fault_record(uuid="u", migration="mail-001"))
    picture.told_certificate(NOW)
    return set(scraped(picture))


def test_every_metric_that_the_alerts_name_is_exposed() -> None:
    expressions = re.findall(r"expr: >-\n((?: {10}.*\n)+)|expr: (.*)", (DOCS / "alerts.yml").read_text())
    named = {name for parts in expressions for part in parts for name in named_in(part)}
    assert len(named) >= 10
    assert named <= exposed()


def test_every_metric_that_the_dashboard_names_is_exposed() -> None:
    dashboard = json.loads((DOCS / "grafana.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [each["expr"] for each in dashboard["annotations"]["list"]]
    expressions += [
        each["query"]["query"] for each in dashboard["templating"]["list"] if each["type"] == "query"
    ]
    named = {name for expression in expressions for name in named_in(expression)}
    assert len(named) >= 15
    assert named <= exposed()
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)


def test_sections_that_the_alerts_point_at_are_there() -> None:
    operating = (DOCS.parent / "OPERATING.md").read_text()
    pointed = re.findall(r"«([^»]+)»", re.sub(r"\s+", " ", (DOCS / "alerts.yml").read_text()))
    assert pointed
    for section in pointed:
        assert section in re.sub(r"\s+", " ", operating), section


@pytest.mark.promtool
@pytest.mark.parametrize("count", [0, 20])
def test_prometheus_s_own_checker_has_nothing_to_say_about_the_metrics(promtool: Path, count: int) -> None:
    content, _ = exposition(told(count), "")
    checked = subprocess.run([promtool, "check", "metrics"], input=content, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


@pytest.mark.promtool
def test_alert_rules_do_what_they_say(promtool: Path) -> None:
    for command in (("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")):
        checked = subprocess.run([promtool, *command], cwd=DOCS, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.promtool
def test_every_alert_is_tested() -> None:
    rules, tests = (DOCS / "alerts.yml").read_text(), (DOCS / "alerts_test.yml").read_text()
    alerts = re.findall(r"alert: (\w+)", rules)
    fired = tests.partition("a fault is told at once")[2]
    assert alerts
    for alert in alerts:
        assert f'"{alert}"' in fired, f"{alert} is never seen firing"


def test_states_are_those_of_the_table() -> None:
    assert {labels[0] for labels in scraped(told(20))["cutover_migration_state"]} == set(State)


def test_labels_are_bounded() -> None:
    picture = Picture("e")
    picture.told_status(status(view()), NOW)
    picture.told_progress(view(io_engine="e" * 5000), NOW)
    assert max(len(line) for line in exposition(picture, "")[0].splitlines()) < 1000


def test_page_has_the_words_of_every_condition_of_the_journal() -> None:
    text = (DOCS.parents[1] / "services/monitoring/static/words.js").read_text()
    told = dict(re.findall(r'"([a-z-]+)": "([^"]+)",', text.partition("JOURNALS = {")[2].partition("}")[0]))
    assert told == {each: words for each, words in WORDS.items() if each is not JournalCondition.SOUND}


def test_operating_has_a_row_for_every_condition_of_the_journal() -> None:
    operating = (DOCS.parent / "OPERATING.md").read_text()
    for condition, words in WORDS.items():
        assert f"| `{condition}` | `{words}` |" in operating
