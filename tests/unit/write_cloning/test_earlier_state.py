"""No host begins anew beside the state of an earlier installation; and where there is none, nothing keeps it."""

from pathlib import Path

import orjson
import pytest

from services.write_cloning.run_number import refuse_earlier_state
from shared.config.load import ConfigError
from shared.earlier_state import earlier_journals


def kept(folder: Path, host: str, name: str = "vol1") -> None:
    (folder / "witnesses").mkdir(parents=True, exist_ok=True)
    sealed = {"sha256": "", "witness": {"host": host, "migration": name}}
    (folder / f"witnesses/{name}.witness").write_bytes(orjson.dumps(sealed))
    (folder / "run").write_text("7")


@pytest.mark.parametrize(("place", "host"), [(".", "h1"), (".", "other"), ("host", "h1"), ("h1/h1", "h1")])
def test_a_host_does_not_begin_beside_what_it_had(tmp_path: Path, place: str, host: str) -> None:
    kept(tmp_path / place, host)
    with pytest.raises(ConfigError) as caught:
        refuse_earlier_state(tmp_path / "h1", "h1")
    assert f"{tmp_path / place} holds vol1 of an earlier installation" in str(caught.value)
    assert "Move that state here" in str(caught.value)
    assert not (tmp_path / "h1/run").exists()


def test_what_is_cleaned_up_or_another_host_s_keeps_nobody(tmp_path: Path) -> None:
    kept(tmp_path / "h2", "h2")
    kept(tmp_path / "host", "host")
    kept(tmp_path / "h1-before", "h1")  # out of the way
    (tmp_path / "witnesses").mkdir()
    (tmp_path / "run").write_text("7")
    (tmp_path / "file").touch()
    refuse_earlier_state(tmp_path / "h1", "h1")
    refuse_earlier_state(tmp_path / "no/where/h1", "h1")


def test_a_host_that_has_begun_goes_on(tmp_path: Path) -> None:
    kept(tmp_path, "h1")
    (tmp_path / "h1").mkdir()
    (tmp_path / "h1/run").write_text("1")
    refuse_earlier_state(tmp_path / "h1", "h1")


def test_a_journal_of_another_account_is_found(tmp_path: Path) -> None:
    for account in ("$G", "CUTOVER"):
        (tmp_path / f"jetstream/{account}/streams/CUTOVER_JOURNAL").mkdir(parents=True)
    (tmp_path / "jetstream/OTHER/streams/X").mkdir(parents=True)
    assert earlier_journals(tmp_path, "CUTOVER_JOURNAL", "CUTOVER") == (str(tmp_path / "jetstream/$G"),)
    assert earlier_journals(tmp_path / "none", "CUTOVER_JOURNAL", "CUTOVER") == ()
