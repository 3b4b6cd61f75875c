"""Keys and key files: what is recognised, what is kept, what a file may hold."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from openinference import key_file
from openinference.api_keys import KeyRing, is_key, new_key
from openinference.key_file import UnusableKeyFileError

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
HASH = 64 * "a"


def test_a_new_key_is_found_and_no_other():
    text, key = new_key(tenant="acme")
    other, _ = new_key(tenant="acme")
    ring = KeyRing([key])
    assert ring.find(text) is key
    assert text.startswith(f"kw_{key.id}_")
    wrong_secret = f"kw_{key.id}_{other.rpartition('_')[2]:A<43}"
    for guess in (other, wrong_secret, text[:-1], text + "A", text.upper(), "", "kw_", "none"):
        assert ring.find(guess) is None


def test_the_secret_is_not_kept():
    text, key = new_key(tenant="acme")
    secret = text.split("_", 2)[2]
    assert len(secret) == 43  # 256 bits
    assert secret not in key_file.dump([key]) + repr(key)
    assert key.sha256 not in repr(key)


def test_secrets_may_hold_what_separates():
    for _ in range(200):
        text, key = new_key(tenant="acme")
        assert KeyRing([key]).find(text) is key


@pytest.mark.parametrize(
    ("not_before", "expires", "valid"),
    [
        (None, None, True),
        (NOW, None, True),
        (NOW + HOUR, None, False),
        (None, NOW + HOUR, True),
        (None, NOW, False),
        (NOW - HOUR, NOW + HOUR, True),
    ],
)
def test_a_key_is_valid_from_then_until_then(not_before, expires, valid):
    text, key = new_key(tenant="acme", not_before=not_before, expires=expires)
    assert (KeyRing([key]).find(text, NOW) is key) is valid


def test_two_keys_of_one_id_are_refused():
    _, key = new_key(tenant="acme")
    with pytest.raises(ValueError, match=f"two keys have the id {key.id}"):
        KeyRing([key, key])


@pytest.mark.parametrize(
    "text", ["none", "EMPTY", "sk-123", "kw_short_x", "kw_abcdefgh_" + "é" * 43]
)
def test_what_has_not_the_form_of_a_key(text):
    assert not is_key(text)


def test_a_file_gives_back_what_was_written():
    keys = [
        new_key(tenant="acme", models=frozenset({"b", "a"}), expires=NOW, note="für später")[1],
        new_key(tenant="other", plan="gold", priority=-1, not_before=NOW)[1],
    ]
    assert key_file.parse(key_file.dump(keys)) == keys
    manifest = key_file.secret_manifest("keys", "prod", keys)
    assert key_file.parse_any(manifest)[0] == keys
    assert yaml.safe_load(manifest)["metadata"]["namespace"] == "prod"


def test_a_secret_keeps_its_other_members_and_may_be_base64():
    _, key = new_key(tenant="acme")
    encoded = base64.b64encode(key_file.dump([key]).encode()).decode()
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "keys", "annotations": {"a": "b"}},
        "data": {"keys.yaml": encoded, "other": "eA=="},
    }
    keys, read = key_file.parse_any(yaml.safe_dump(manifest))
    assert keys == [key]
    again = yaml.safe_load(key_file.dump_any([], read))
    assert again["metadata"]["annotations"] == {"a": "b"}
    assert again["data"] == {"other": "eA=="}
    assert key_file.parse(again["stringData"]["keys.yaml"]) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("keys: [", "is not YAML"),
        ("[]", "must be a mapping with one member, keys"),
        ("keys: []\nmore: 1", "must be a mapping with one member, keys"),
        ("keys: 1", "keys.: Input should be a valid list"),
        ("keys: [{id: hunter2, sha256: hunter2, tenant: t}]", "keys.0.id"),
        ("keys: [{id: abcdefgh, sha256: hunter2, tenant: t}]", "keys.0.sha256"),
        (f"keys: [{{id: abcdefgh, sha256: {HASH}}}]", "keys.0.tenant: Field required"),
        (
            f"keys: [{{id: abcdefgh, sha256: {HASH}, tenant: t, expires: 2026-01-01T00:00}}]",
            "keys.0.expires",
        ),
        ("kind: Secret\ndata: {}", "the Secret has no keys.yaml"),
        ("kind: Secret\ndata: {keys.yaml: '%%'}", "the Secret has no keys.yaml"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_place_and_not_repeated(text, told):
    with pytest.raises(UnusableKeyFileError) as refused:
        key_file.parse_any(text)
    assert told in str(refused.value)
    assert "hunter2" not in str(refused.value)
