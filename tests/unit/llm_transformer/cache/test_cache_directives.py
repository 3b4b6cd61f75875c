"""Cache-Control of requests."""

import pytest

from llm_transformer.cache.directives import Directives, parse


@pytest.mark.parametrize(
    ("header", "directives"),
    [
        (None, Directives()),
        ("", Directives()),
        ("no-transform, x=1,,", Directives()),
        ("No-Store", Directives(no_store=True)),
        ("no-cache", Directives(no_cache=True)),
        ("only-if-cached, max-age=30", Directives(only_if_cached=True, max_age_s=30)),
        ('max-age="30"', Directives(max_age_s=30)),
        ("max-age=0", Directives(no_cache=True, max_age_s=0)),
        ("max-age=-1", Directives(no_cache=True, max_age_s=0)),
        ("max-age=soon", Directives(no_cache=True, max_age_s=0)),
        ("max-age", Directives(no_cache=True, max_age_s=0)),
        ("max-age=\u0663", Directives(no_cache=True, max_age_s=0)),
        ("max-age=99999999999999999999", Directives(max_age_s=9999999999)),
        ("sampled", Directives(sampled=True)),
    ],
)
def test_directives(header, directives):
    assert parse(header) == directives


def test_what_an_age_does():
    assert parse("max-age=30").accepts(30)
    assert not parse("max-age=30").accepts(30.1)
    assert not parse("no-cache").accepts(0)
    assert parse(None).accepts(1e9)
