"""Who calls: keys by every road, uniform refusals, and a key file that changes under the server."""

import asyncio

import pytest

from llm_transformer.auth import ANONYMOUS, Authenticator
from openinference import key_file
from openinference.api_keys import new_key
from openinference.context import from_headers
from openinference.errors import PermissionDenied, Unauthenticated
from openinference.key_file import UnusableKeyFileError


def _context(**headers):
    return from_headers({name.replace("_", "-"): value for name, value in headers.items()}, 0.0)


@pytest.fixture
def keys(tmp_path):
    """A key file: `add` writes another key and returns its text, `drop` takes all out."""

    class Keys:
        path = tmp_path / "keys.yaml"
        kept: list = []  # noqa: RUF012 (one fixture, one list)

        def add(self, **members):
            text, key = new_key(**{"tenant": "acme", **members})
            self.kept = [*self.kept, key]
            self.write(key_file.dump(self.kept))
            return text

        def write(self, text):
            temporary = tmp_path / "new"
            temporary.write_text(text)
            temporary.replace(self.path)

    return Keys()


def _auth(keys, **options):
    return Authenticator(keys.path, allow_anonymous=options.pop("anonymous", False), **options)


@pytest.mark.parametrize("scheme", ["Bearer {}", "bearer {}", "BEARER   {}"])
def test_a_key_comes_as_bearer(keys, scheme):
    text = keys.add(plan="gold", priority=3)
    who = _auth(keys).identify(_context(authorization=scheme.format(text)), "m")
    assert (who.tenant, who.plan, who.priority) == ("acme", "gold", 3)


def test_a_key_comes_as_x_api_key(keys):
    text = keys.add()
    assert _auth(keys).identify(_context(x_api_key=text), "m").tenant == "acme"


def test_every_refusal_is_the_same(keys):
    good = keys.add()
    expired = keys.add(expires="2020-01-01T00:00:00Z")
    early = keys.add(not_before="2099-01-01T00:00:00Z")
    other, _ = new_key(tenant="x")
    wrong = good[:-43] + other[-43:]
    auth, told = _auth(keys), set()
    for headers in (
        {},
        {"authorization": "Basic dTpw"},
        {"authorization": ""},
        *({"authorization": f"Bearer {text}"} for text in (expired, early, other, wrong, "none")),
    ):
        context = _context(**headers)
        with pytest.raises(Unauthenticated) as refused:
            auth.identify(context, "m")
        told.add((str(refused.value), context.reply.headers["www-authenticate"]))
    assert len(told) == 1


def test_a_key_for_other_models_is_not_told_whether_a_model_exists(keys):
    text = keys.add(models=["chat"])
    auth = _auth(keys)
    assert auth.identify(_context(x_api_key=text), "chat").tenant == "acme"
    for model in ("other", "no-such-model"):
        with pytest.raises(PermissionDenied, match="your API key is not for this model"):
            auth.identify(_context(x_api_key=text), model)


def test_what_headers_say_of_tenant_plan_and_priority_is_not_believed(keys):
    text = keys.add()
    context = _context(x_api_key=text, x_keepwarm_tenant="victim", x_keepwarm_priority="9")
    stamped = _auth(keys).identify(context, "m").stamped(context)
    assert (stamped.tenant, stamped.plan, stamped.priority) == ("acme", "default", 0)
    assert "x-api-key" not in stamped.forwarded()
    assert text not in repr(stamped)


def test_without_a_key_file_everybody_is_anonymous():
    auth = Authenticator(None, allow_anonymous=True)
    for headers in ({}, {"authorization": "Bearer none"}, {"x_api_key": "kw_abcdefgh_" + "x" * 43}):
        assert auth.identify(_context(**headers), "m") is ANONYMOUS


def test_with_keys_and_anonymous_callers_a_wrong_key_is_still_refused(keys):
    text, auth = keys.add(), None
    auth = _auth(keys, anonymous=True)
    assert auth.identify(_context(), "m") is ANONYMOUS
    # SDKs that insist on a key are given such words.
    assert auth.identify(_context(authorization="Bearer EMPTY"), "m") is ANONYMOUS
    assert auth.identify(_context(x_api_key=text), "m").tenant == "acme"
    with pytest.raises(Unauthenticated):
        auth.identify(_context(x_api_key=new_key(tenant="x")[0]), "m")


@pytest.mark.parametrize("content", [None, "", "keys: [", "keys: [{id: a}]"])
def test_a_file_that_cannot_be_used_at_the_start_is_refused(keys, content):
    if content is not None:
        keys.write(content)
    with pytest.raises(UnusableKeyFileError, match=r"keys\.yaml"):
        _auth(keys)


def test_keys_that_must_not_be_used_are_refused(keys):
    keys.add(plan="nosuch")

    def check(ring):
        raise ValueError(f"no plan {ring.plans}")

    with pytest.raises(UnusableKeyFileError, match=r"no plan \{'nosuch'\}"):
        _auth(keys, check=check)


async def _becomes(auth, text, tenant):
    """Waits until `text` is a key of `tenant` (None: no key)."""

    def now():
        try:
            return auth.identify(_context(x_api_key=text), "m").tenant
        except Unauthenticated:
            return None

    async with asyncio.timeout(20):
        while now() != tenant:  # noqa: ASYNC110 (a plain state)
            await asyncio.sleep(0.05)


@pytest.fixture
async def watching():
    auths = []

    def start(auth):
        auth.start()
        auths.append(auth)
        return auth

    yield start
    for auth in auths:
        await auth.close()


async def test_keys_come_and_go_without_a_restart(keys, watching):
    first = keys.add()
    auth = watching(_auth(keys))
    second = keys.add(tenant="second")
    await _becomes(auth, second, "second")
    keys.kept = keys.kept[1:]
    keys.write(key_file.dump(keys.kept))
    await _becomes(auth, first, None)
    await _becomes(auth, second, "second")


async def test_the_last_good_keys_stay_when_the_file_breaks_or_goes(keys, watching, caplog):
    text = keys.add()
    auth = watching(_auth(keys))
    keys.write("keys: [{id: hunter2}]")
    async with asyncio.timeout(20):
        while "stay in use" not in caplog.text:  # noqa: ASYNC110 (a log's state)
            await asyncio.sleep(0.05)
    assert "hunter2" not in caplog.text
    await _becomes(auth, text, "acme")
    keys.path.unlink()
    later = keys.add(tenant="later")
    await _becomes(auth, later, "later")


async def test_kubernetes_swap_of_a_mounted_secret_is_seen(tmp_path, watching):
    # As the kubelet writes a volume: keys.yaml -> ..data/keys.yaml, ..data -> a folder with a date.
    def publish(folder, text):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "keys.yaml").write_text(text)
        link = tmp_path / "..data_tmp"
        link.symlink_to(folder)
        link.replace(tmp_path / "..data")

    (old, old_key), (new, fresh) = new_key(tenant="old"), new_key(tenant="new")
    publish("..2026_01", key_file.dump([old_key]))
    (tmp_path / "keys.yaml").symlink_to("..data/keys.yaml")
    auth = watching(Authenticator(tmp_path / "keys.yaml", allow_anonymous=False))
    await _becomes(auth, old, "old")
    publish("..2026_02", key_file.dump([fresh]))
    await _becomes(auth, new, "new")
    await _becomes(auth, old, None)
