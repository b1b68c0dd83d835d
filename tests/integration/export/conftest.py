"""Certificates, made once."""

from pathlib import Path

import pytest

from tests.support.certificates import Pki


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """A CA, a server's certificate, and clients of every kind."""
    return Pki(Path(tmp_path_factory.mktemp("pki")))
