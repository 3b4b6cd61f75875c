"""What ours is started with is what the tables say of it."""

import idle_streams
import pytest
import stages
from contenders import LITELLM, OTHER_KEYS, PROXY, Keys, Upstreams, installed, keepwarm

from llm_transformer.limits import plans
from llm_transformer.limits.plans import Plan
from llm_transformer.settings import TransformerSettings
from openinference import key_file
from openinference.api_keys import KeyRing

OURS = [
    each
    for each in (*stages.VARIANTS, *idle_streams.contenders(idle_streams.STREAMS))
    if each.name != PROXY
]


def settings_of(contender, folder):
    """The settings that its flags make."""
    arguments = contender.arguments(Upstreams("p:1", "p:2", folder), Keys(folder), 8080)
    assert arguments[:2] == ["-m", "llm_transformer"]
    return TransformerSettings.from_args(arguments[2:])


@pytest.mark.parametrize("contender", OURS, ids=lambda each: each.name)
def test_the_transformer_takes_the_flags_of_every_variant(contender, tmp_path):
    assert settings_of(contender, tmp_path).http_port == 8080


def test_everything_is_on_and_each_variant_turns_off_what_it_says(tmp_path):
    def on(**less):
        settings = settings_of(keepwarm(**less), tmp_path)
        return settings.cache, bool(settings.keys_file), bool(settings.plans_file)

    assert on() == ("tenant", True, True)
    assert on(cache=False) == ("off", True, True)
    assert on(limits=False) == ("tenant", True, False)
    assert on(keys=False, limits=False) == ("tenant", False, False)


def test_the_key_is_one_among_many_and_its_plan_has_every_kind_of_limit(tmp_path):
    keys = Keys(tmp_path)
    ring = KeyRing(key_file.parse(keys.keys_file.read_text()))
    assert len(ring) == OTHER_KEYS + 1
    assert ring.find(keys.key).tenant == "acme"
    plan = plans.read(keys.plans_file).plans["default"]
    # Only what a route may have besides is left as it is.
    assert plan.model_fields_set == set(Plan.model_fields) - {"max_tokens_by_route"}


def test_what_is_not_set_up_is_left_out_and_the_rest_is_there(monkeypatch, tmp_path):
    monkeypatch.setattr("contenders.LITELLM_PYTHON", tmp_path / "nothing")
    assert not installed(LITELLM)
    assert installed(PROXY)
