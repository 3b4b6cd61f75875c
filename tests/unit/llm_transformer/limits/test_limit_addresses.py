"""Which address a limit counts: the socket's, or what proxies we trust have written down."""

import pytest

from llm_transformer.limits.addresses import ClientAddresses
from openinference.context import Caller

TRUSTED = ("10.0.0.0/8", "127.0.0.0/8", "fd00::/8")


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", None, "203.0.113.9"),
        # Who is not a proxy of ours says nothing about others.
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, 10.2.3.4", "198.51.100.1"),
        # What a caller writes itself stands to the left of what the first proxy appends.
        ("10.0.0.1", "1.2.3.4, 198.51.100.1, 10.2.3.4", "198.51.100.1"),
        ("10.0.0.1", "10.9.9.9, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "10.2.3.4, 10.2.3.5", "10.2.3.4"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, nonsense", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8::7]:4711", "2001:db8::/64"),
        ("127.0.0.1", "2001:db8:0:1:2:3:4:5", "2001:db8:0:1::/64"),
        ("::ffff:203.0.113.9", None, "203.0.113.9"),
        ("fd00::1", "198.51.100.1", "198.51.100.1"),
        ("2001:db8:5::1", "198.51.100.1", "2001:db8:5::/64"),
        ("", "198.51.100.1", ""),
        ("testclient", None, "testclient"),
    ],
)
def test_the_clients_address(peer, forwarded, client):
    addresses = ClientAddresses(TRUSTED)
    assert addresses.of(Caller(address=peer, forwarded_for=forwarded)) == client


def test_without_trusted_proxies_the_header_is_never_read():
    addresses = ClientAddresses(())
    assert addresses.of(Caller("10.0.0.1", "198.51.100.1")) == "10.0.0.1"


@pytest.mark.parametrize("network", ["10.0.0.1/8", "ten", "10.0.0.0/33"])
def test_what_is_no_network_is_refused(network):
    with pytest.raises(ValueError, match=network.split("/", maxsplit=1)[0]):
        ClientAddresses([network])
