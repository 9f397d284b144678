"""What `run.notify` may be: a URL, or a command as one text or as a list of its words."""

from __future__ import annotations

import shlex

Target = str | tuple[str, ...]


def is_url(target: Target) -> bool:
    """Whether the line goes to a web server."""
    return isinstance(target, str) and target.lower().startswith(("http://", "https://"))


def words_of(target: Target) -> list[str]:
    """The words of a command, as a shell would split them, and without one."""
    return shlex.split(target) if isinstance(target, str) else list(target)


def notify_target(target: Target | None) -> Target | None:
    """The target, if it is a URL or a command. Raises ValueError otherwise."""
    if target is None or is_url(target):
        return target
    words = words_of(target)
    if not words or "://" in words[0]:
        raise ValueError(
            "write a command, as one text or a list of words, or a URL that begins with http:// or https://"
        )
    return target
