"""Redis URLs: what each form means, and refusals that do not repeat a password."""

import pytest

from llm_transformer.store.address import Kind, RedisAddress, UnusableAddressError

FORMS = [
    ("redis://cache", (Kind.SINGLE, (("cache", 6379),), False, "", 0, None, None)),
    (
        "redis://me:p%40ss@10.0.0.1:7000/3",
        (Kind.SINGLE, (("10.0.0.1", 7000),), False, "", 3, "me", "p@ss"),
    ),
    ("rediss://:secret@[::1]:6380", (Kind.SINGLE, (("::1", 6380),), True, "", 0, None, "secret")),
    (
        "redis+sentinel://a,b:26380/mymaster",
        (Kind.SENTINEL, (("a", 26379), ("b", 26380)), False, "mymaster", 0, None, None),
    ),
    (
        "rediss+sentinel://:s@a/mymaster/2",
        (Kind.SENTINEL, (("a", 26379),), True, "mymaster", 2, None, "s"),
    ),
    (
        "redis+cluster://:s@redis-0.redis,redis-1.redis:6380",
        (Kind.CLUSTER, (("redis-0.redis", 6379), ("redis-1.redis", 6380)), False, "", 0, None, "s"),
    ),
]


@pytest.mark.parametrize(("url", "meant"), FORMS)
def test_a_url_names_a_server_a_master_or_a_cluster(url, meant):
    a = RedisAddress.parse(url)
    assert (a.kind, a.hosts, a.tls, a.master, a.db, a.username, a.password) == meant


def test_options_are_read():
    address = RedisAddress.parse("rediss+sentinel://a/m?ca_file=/etc/ca.pem&sentinel_password=x")
    assert (address.ca_file, address.sentinel_password) == ("/etc/ca.pem", "x")


@pytest.mark.parametrize(
    "url",
    [
        "hunter2",
        "http://:hunter2@cache",
        "redis://:hunter2@a,b",
        "redis://:hunter2@",
        "redis://:hunter2@a:0",
        "redis://:hunter2@a:99999",
        "redis://:hunter2@a/one",
        "redis://:hunter2@a/1/2",
        "redis://:hunter2@a?db=hunter2",
        "redis://:hunter2@a?ca_file=x",
        "redis+sentinel://:hunter2@a",
        "redis+cluster://:hunter2@a/1",
        "redis://:hunter2@[bad",
    ],
)
def test_another_url_is_refused_without_repeating_it(url):
    with pytest.raises(UnusableAddressError) as refused:
        RedisAddress.parse(url)
    assert "hunter2" not in str(refused.value)


def test_its_secrets_are_not_printed():
    address = RedisAddress.parse("redis+sentinel://u:hunter2@a/m?sentinel_password=hunter3")
    assert "hunter" not in f"{address} {address!r}"
