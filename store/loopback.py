"""Whether an address is this machine's alone: whoever listens there, or asks from there, needs no key."""

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a host, as in a URL or a setting, is this machine and nobody else can reach it."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
