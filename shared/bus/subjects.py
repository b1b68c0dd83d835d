"""Subjects and the patterns that stand for several of them, as NATS has them."""

from functools import lru_cache


@lru_cache(maxsize=4096)  # the same few subjects are asked for all the time
def covers(pattern: str, subject: str) -> bool:
    """Whether a subject is one of those that a pattern with `*` and `>` stands for."""
    wanted, tokens = pattern.split("."), subject.split(".")
    for position, part in enumerate(wanted):
        if part == ">":
            return len(tokens) > position
        if position >= len(tokens) or part not in {"*", tokens[position]}:
            return False
    return len(wanted) == len(tokens)
