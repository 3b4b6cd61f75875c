"""Which client a request comes from, when proxies stand before us.

X-Forwarded-For is a list to which every proxy appends the address it was called from; what a caller
writes itself stands to the left. It is read from the right, over the addresses of proxies we
trust, to the first that is not one of them.
"""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from openinference.context import Caller

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# A household or a virtual machine is given a /64 at least (RFC 6177): one client.
_IPV6_CLIENT: Final = 64


class ClientAddresses:
    """Tells the client's address; IPv6 as its /64."""

    def __init__(self, trusted: Iterable[str]) -> None:
        """`trusted` are networks of proxies; raises ValueError for what is none."""
        self._trusted = [ipaddress.ip_network(network) for network in trusted]
        self._find = lru_cache(maxsize=8192)(self._found)

    def of(self, caller: Caller) -> str:
        """The client's address; the socket's own where nothing better is known."""
        return self._find(caller.address, caller.forwarded_for if self._trusted else None)

    def _found(self, peer: str, forwarded_for: str | None) -> str:
        client = _parsed(peer)
        if client is None:
            return peer
        hops = (forwarded_for or "").split(",")
        while self._is_trusted(client) and hops:
            hop = _parsed(hops.pop().strip())
            if hop is None:
                break
            client = hop
        if isinstance(client, ipaddress.IPv6Address):
            return str(ipaddress.ip_network((client, _IPV6_CLIENT), strict=False))
        return str(client)

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def _parsed(text: str) -> Address | None:
    """An address, perhaps with a port or in brackets, as proxies write them."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
