"""The three services on a bus in memory."""

from tests.support.services_in_memory import broker, services

__all__ = ["broker", "services"]
