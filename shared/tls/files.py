"""Which files TLS is done with. What is in them is the business of `certificates`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shared.config.model import NbdConfig


class CertificateError(Exception):
    """The files that TLS is to be done with will not do: a clause for each mistake, which begins with its key."""

    def __init__(self, *mistakes: str, is_too_early: bool = False) -> None:
        """With all that is wrong; whether only that nothing is valid yet, which time mends, or a clock that is set."""
        super().__init__("; ".join(mistakes))
        self.mistakes = mistakes
        self.is_too_early = is_too_early


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Where they are; the names of the fields, with `nbd.tls_` before and `_file` behind, are keys of the configuration."""

    certificate: Path  # with what stands between it and the CA that clients know, if there is such
    key: Path
    client_ca: Path | None = None  # None: clients need no certificate

    def each(self) -> Iterator[tuple[str, Path]]:
        """Every one that there is, under its key."""
        yield "nbd.tls_certificate_file", self.certificate
        yield "nbd.tls_key_file", self.key
        if self.client_ca is not None:
            yield "nbd.tls_client_ca_file", self.client_ca


def tls_files(nbd: NbdConfig) -> TlsFiles | None:
    """Those that a host is configured with; None where it does no TLS."""
    if nbd.tls_certificate_file is None or nbd.tls_key_file is None:
        return None
    return TlsFiles(
        certificate=Path(nbd.tls_certificate_file),
        key=Path(nbd.tls_key_file),
        client_ca=Path(nbd.tls_client_ca_file) if nbd.tls_client_ca_file is not None else None,
    )
