"""npm's own parser judges the document."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from docs.reference.asyncapi import document
from docs.reference.files import ASYNCAPI

pytestmark = pytest.mark.asyncapi_parser

ERRORS_AND_WARNINGS = (0, 1)
TIMEOUT_S = 60.0


def judged(check: Path, file: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        ["node", check, file], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    told: list[dict[str, Any]] = json.loads(done.stdout)
    return [each for each in told if each["severity"] in ERRORS_AND_WARNINGS]


def test_the_document_is_valid(asyncapi_check: Path) -> None:
    assert judged(asyncapi_check, ASYNCAPI) == []


def test_the_judge_finds_what_is_wrong(asyncapi_check: Path, tmp_path: Path) -> None:
    """A judge that never objects is none: a reply that is on no channel."""
    wrong = document()
    wrong["operations"]["control-sync"]["reply"]["messages"][0] = {"$ref": "#/channels/nowhere"}
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps(wrong))
    assert any(each["path"].startswith("operations.control-sync") for each in judged(asyncapi_check, file))
