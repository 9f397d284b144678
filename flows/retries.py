"""Which failures of a stage are worth another try, and how long to wait before each."""

from __future__ import annotations

from flows.errors import StageDied

RETRY_DELAYS = [5.0, 30.0]
"""Seconds before the second try, and before the third."""


def is_worth_retrying(error: object) -> bool:
    """Whether the same stage may well succeed next time: its process was killed, or a service was away."""
    return isinstance(error, StageDied | ConnectionError)
