"""Which hosts are this machine's alone: who listens there, or asks from there, needs no key."""

import ipaddress

import pytest

from store.loopback import is_loopback


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost", "localhost.", "a.localhost", "127.0.0.1", "127.8.8.8", "::1", "[::1]"],
)
def test_a_host_that_nobody_else_can_reach(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "0.0.0.0",
        "::",
        "[::]",
        "10.0.0.1",
        "127.1",  # which some programs read as 127.0.0.1
        "127.0.0.1.nip.io",
        "localhost.evil.com",
        "evil-localhost",
    ],
)
def test_a_host_that_others_reach_or_name(host: str) -> None:
    assert not is_loopback(host)


def test_an_address_of_version_4_in_one_of_version_6_counts_as_python_counts_it() -> None:
    """Both answers are safe; from 3.13 on it is the true one."""
    mapped = ipaddress.ip_address("::ffff:127.0.0.1")
    assert is_loopback(str(mapped)) == is_loopback(f"[{mapped}]") == mapped.is_loopback
