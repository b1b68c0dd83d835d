"""Who may reach the volumes over TCP: those with a certificate; everyone, only where the configuration says so in words.

So it is with commands on the page, whose access token anyone on the way can read where it is served to other machines.

Loopback is no exception: every user and every container on this host's network reaches it, past the rights of any socket file.
"""

from collections.abc import Iterator

from shared.config.addresses import is_loopback, is_tcp
from shared.config.model import COMMANDS_UNENCRYPTED, OPEN_TO_EVERYONE, MonitoringConfig, NbdConfig


def exposure_mistakes(nbd: NbdConfig) -> Iterator[str]:
    """What stands in the way of serving what is configured: a sentence for each mistake, which begins with its key."""
    for first, second in (
        ("tls_certificate_file", "tls_key_file"),
        ("tls_key_file", "tls_certificate_file"),
        ("tls_client_ca_file", "tls_certificate_file"),
    ):
        if getattr(nbd, first) is not None and getattr(nbd, second) is None:
            yield f"nbd.{second}: required, because nbd.{first} is set"
    why = why_exposed(nbd)
    for address in nbd.listen:
        if why and is_tcp(address):
            yield f"nbd.listen: {address} {why}"


def page_mistakes(page: MonitoringConfig) -> Iterator[str]:
    """What stands in the way of offering commands where it is configured."""
    if page.operator_nkey_seed_file is None or page.unencrypted_commands is not None:
        return
    if not is_loopback(page.listen):
        yield (
            f"monitoring.operator_nkey_seed_file: the page is served without TLS on {page.listen}, and the token for commands "
            "with it: listen on loopback, behind a proxy with TLS if other machines need them; or, if that is meant, "
            f'monitoring.unencrypted_commands = "{COMMANDS_UNENCRYPTED}"'
        )


def why_exposed(nbd: NbdConfig) -> str:
    """Why no TCP is served as it is configured, and what would change that; empty: it is, with TLS where that is set up."""
    if nbd.unencrypted_tcp is not None:
        return ""
    if nbd.tls_certificate_file is None:
        missing = "nbd.tls_certificate_file, nbd.tls_key_file and nbd.tls_client_ca_file"
    elif nbd.tls_client_ca_file is None:
        missing = "nbd.tls_client_ca_file, so that clients show a certificate"
    else:
        return ""
    return (
        f"would be open to everyone who reaches it: set {missing}; "
        f'or, if that is meant, nbd.unencrypted_tcp = "{OPEN_TO_EVERYONE}"'
    )
