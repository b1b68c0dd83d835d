"""Text that came from elsewhere, made safe to show; the services' logs do the same."""

from shared.plain import plain

__all__ = ["plain"]
