"""Which engine this process uses. The choice is made once, and is visible in every device's `engine_name`."""

from dataclasses import dataclass

from services.write_cloning.devices.engine import Engine
from services.write_cloning.devices.errors import EngineUnavailableError
from services.write_cloning.devices.ring import RingEngine
from services.write_cloning.devices.threads import ThreadEngine


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """An engine, and in a sentence why it is not io_uring; empty when it is, or when threads were asked for."""

    engine: Engine
    why_not_io_uring: str = ""


def choose_engine(*, allow_io_uring: bool = True) -> EngineChoice:
    """Take io_uring where it can be had, else threads. Called from the loop that the engine is to serve."""
    if not allow_io_uring:
        return EngineChoice(ThreadEngine())
    try:
        return EngineChoice(RingEngine())
    except EngineUnavailableError as refusal:
        return EngineChoice(ThreadEngine(), str(refusal))
