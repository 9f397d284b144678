"""Addresses at which machines meet."""

from __future__ import annotations

import pytest

from flows.config.rendezvous import rendezvous_address
from flows.config.sections import ComputeOptions
from flows.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("node1", ("node1", 29400)),
        ("10.0.0.5:3000", ("10.0.0.5", 3000)),
        ("[fd00::1]", ("fd00::1", 29400)),
        ("[fd00::1]:3000", ("fd00::1", 3000)),
    ],
)
def test_addresses(text: str, wanted: tuple[str, int]) -> None:
    assert rendezvous_address(text) == wanted


@pytest.mark.parametrize(
    "text",
    ["", ":29400", "node1:", "node1:70000", "fd00::1:3000", "tcp://node1:3000", "0.0.0.0:3000", "a b:1"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        rendezvous_address(text)


def test_several_machines_need_an_address() -> None:
    with pytest.raises(ValueError, match=r"set run.rendezvous to HOST:PORT"):
        ComputeOptions(nodes=2)
    assert ComputeOptions(nodes=2, rendezvous="node1").nodes == 2
