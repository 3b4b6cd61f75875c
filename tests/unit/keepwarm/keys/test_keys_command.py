"""`keepwarm keys`: the key is printed once, the file keeps its hash, a Secret stays a Secret."""

import stat

import pytest
import yaml
from typer.testing import CliRunner

from keepwarm.cli import app
from openinference import key_file
from openinference.api_keys import KeyRing


@pytest.fixture
def keys(tmp_path):
    """Runs a command on a file; the output, or status and message when it fails."""

    def run(*args, file="keys.yaml"):
        done = CliRunner().invoke(app, ["keys", *args, "--file", str(tmp_path / file)])
        return done.stdout if done.exit_code == 0 else (done.exit_code, done.stderr)

    run.folder = tmp_path
    return run


def _ring(keys, file="keys.yaml"):
    return KeyRing(key_file.parse_any((keys.folder / file).read_text())[0])


def test_a_key_is_made_listed_and_revoked(keys):
    text = keys("create", "--tenant", "acme", "--plan", "gold", "--model", "chat").strip()
    other = keys("create", "--tenant", "other", "--expires", "90d").strip()
    key = _ring(keys).find(text)
    assert (key.tenant, key.plan, key.models) == ("acme", "gold", {"chat"})
    listed = keys("list")
    assert key.id in listed
    assert "valid" in listed
    secret = text.split("_", 2)[2]
    assert secret not in listed + (keys.folder / "keys.yaml").read_text()
    assert key.sha256 not in listed
    keys("revoke", key.id)
    assert _ring(keys).find(text) is None
    assert _ring(keys).find(other).tenant == "other"


def test_only_the_owner_may_read_the_file(keys):
    keys("create", "--tenant", "acme")
    assert stat.S_IMODE((keys.folder / "keys.yaml").stat().st_mode) == 0o600


def test_a_new_file_may_be_a_secret_and_stays_one(keys):
    first = keys(
        "create", "--tenant", "acme", "--secret", "api-keys", "--namespace", "prod"
    ).strip()
    second = keys("create", "--tenant", "acme").strip()
    manifest = yaml.safe_load((keys.folder / "keys.yaml").read_text())
    assert (manifest["kind"], manifest["metadata"]["name"]) == ("Secret", "api-keys")
    assert {_ring(keys).find(text).tenant for text in (first, second)} == {"acme"}


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["create", "--tenant", "a b"], "--tenant: String should match pattern"),
        (["create", "--tenant", "a", "--expires", "soon"], "'soon' is no date"),
        (["create", "--tenant", "a", "--priority", "9999"], "--priority: Input should be less"),
        (["create", "--tenant", "a", "--namespace", "n"], "--namespace is for --secret"),
        (["revoke", "nosuch"], "has no key 'nosuch'"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(keys, args, told):
    status, message = keys(*args)
    assert status == 2
    assert told in message
    assert not (keys.folder / "keys.yaml").exists()


def test_a_secrets_name_cannot_be_given_to_a_file_that_is_there(keys):
    keys("create", "--tenant", "acme")
    status, message = keys("create", "--tenant", "acme", "--secret", "s")
    assert (status, "--secret and --namespace are for a new file" in message) == (2, True)


def test_a_broken_file_is_left_as_it_is(keys):
    path = keys.folder / "keys.yaml"
    path.write_text("keys: [")
    assert keys("create", "--tenant", "acme")[0] == 2
    assert path.read_text() == "keys: ["


def test_states_are_shown(keys):
    keys("create", "--tenant", "a", "--expires", "2020-01-31")
    keys("create", "--tenant", "b", "--not-before", "2h")
    listed = keys("list")
    assert "expired" in listed
    assert "early" in listed
