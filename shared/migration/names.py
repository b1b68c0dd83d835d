"""What may be called what. A name becomes part of a NATS subject and of a file name, so it is checked before anything else."""

import re

NAME_LENGTH_MAX = 63
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
NAME_RULE = "lower-case letters, digits and hyphens, a letter or digit first, at most 63 characters"


def is_valid_name(name: str) -> bool:
    """Whether `name` may name a migration or a host (`[a-z0-9][a-z0-9-]{0,62}`)."""
    return _NAME.fullmatch(name) is not None
