"""Where a webhook may go. A URL is a request that this server makes for a stranger: it must not reach what only this
server can reach.

    check_url(url) -> str | None                  what is wrong with the URL as it is written, or None
    Targets.of(hosts, loopback=…) -> Targets      this server's rules; raises ValueError for a setting that reads wrong
    Targets.refusal(url) -> str | None            the same, and what can be said of a literal address or a known name
    await Targets.addresses(host, port)           the addresses to connect to; raises TargetForbidden, OSError

A submission is answered by the first two; every attempt resolves the name again, once, and connects to an address that
was checked, so that a name whose address changes in between gains nothing.
"""

import asyncio
import ipaddress
import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import SplitResult, urlsplit

MAX_URL = 2000
_NAME = re.compile(r"[a-z0-9_.-]+")
Address = IPv4Address | IPv6Address


class TargetForbidden(Exception):
    """The host has an address that webhooks must not reach; the message names the host and not the address."""


def check_url(url: str) -> str | None:
    """What is wrong with a webhook's URL as it is written, or None. Looks nothing up."""
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        return f"A webhook's URL is at most {MAX_URL} printable ASCII characters without blanks"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "This is no URL"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or "\\" in url:
        return "A webhook's URL begins with http:// or https:// and names a host"
    if "@" in parts.netloc:
        return "A webhook's URL holds no user and no password; the signature tells who sends"
    if parts.fragment:
        return "A webhook's URL has no fragment"
    return None


def origin(url: str) -> tuple[str, int]:
    """Host and port of a URL that `check_url` finds nothing wrong with."""
    parts: SplitResult = urlsplit(url)
    return str(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80)


def is_public(address: Address) -> bool:
    """Whether an address is one of the internet at large: not of this machine, this network, a group or a tunnel."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


@dataclass(frozen=True)
class Targets:
    """This server's rules. `names` and `networks` are allowed besides public addresses."""

    names: frozenset[str] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    loopback: bool = False

    @classmethod
    def of(cls, hosts: str, *, loopback: bool) -> "Targets":
        """From RESNETD_WEBHOOK_HOSTS, and whether the server itself listens on loopback alone. Raises ValueError."""
        names, networks = set(), []
        for entry in filter(None, (each.strip().lower() for each in hosts.split(","))):
            try:
                networks.append(ipaddress.ip_network(entry))
            except ValueError:
                if not _NAME.fullmatch(entry):
                    raise ValueError(f"RESNETD_WEBHOOK_HOSTS: {entry!r} is neither a host nor a network") from None
                names.add(entry.rstrip("."))
        return cls(frozenset(names), tuple(networks), loopback)

    def refusal(self, url: str) -> str | None:
        """Why no webhook may go to this URL, as far as it can be told without looking a name up; or None."""
        wrong = check_url(url)
        if wrong is not None:
            return wrong
        host, _ = origin(url)
        try:
            allowed = self._names(host) or self._allows(ipaddress.ip_address(host))
        except ValueError:
            allowed = host.rstrip(".") != "localhost" or self.loopback
        return None if allowed else _forbidden(host)

    async def addresses(self, host: str, port: int) -> list[str]:
        """Every address of `host`, all of them allowed. Raises TargetForbidden; OSError where there is none."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        if not self._names(host) and not all(self._allows(ipaddress.ip_address(each)) for each in addresses):
            raise TargetForbidden(_forbidden(host))
        return addresses

    def _names(self, host: str) -> bool:
        return host.lower().rstrip(".") in self.names

    def _allows(self, address: Address) -> bool:
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        plain = mapped or address
        return (
            is_public(plain)
            or (self.loopback and plain.is_loopback)
            or any(plain in network for network in self.networks if network.version == plain.version)
        )


def _forbidden(host: str) -> str:
    return f"{host} is not a public address; an operator can allow it by RESNETD_WEBHOOK_HOSTS"
