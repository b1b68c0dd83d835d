"""Which NATS the operator's environment names, and what may be advised of it."""

from collections.abc import Mapping
from pathlib import Path

from shared.config.load import load_nats
from shared.config.model import NatsConfig

CONFIG_VARIABLE = "CUTOVER_CONFIG"


def nats_of(environment: Mapping[str, str], config: Path | None = None) -> NatsConfig:
    """Where NATS is and who we are to it: from the file that --config or CUTOVER_CONFIG names, and CUTOVER_NATS_… over it.

    Raises:
        ConfigError: with all that is wrong.
    """
    file = environment.get(CONFIG_VARIABLE)
    return load_nats(config or (Path(file) if file else None), environment)


def is_of_installation(nats: NatsConfig) -> bool:
    """Whether it asks for a key or for TLS. `cutover up` would start another one beside it, which has neither."""
    return nats.nkey_seed_file is not None or nats.demands_tls
