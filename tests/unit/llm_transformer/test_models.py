"""The table of models: what a file may say, and what it means."""

import pytest

from llm_transformer.models import PredictorModels, model_table
from llm_transformer.settings import TransformerSettings
from llm_transformer.yaml_file import UnusableFileError


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "models.yaml"

    def read(text, **settings):
        path.write_text(text)
        return model_table(TransformerSettings(models_file=str(path), **settings))

    return read


def test_without_a_file_one_name_has_one_predictor():
    table = model_table(TransformerSettings(model_name="m", predictor_host="p"))
    assert table.names == ("m",)
    assert table.predictors == (PredictorModels("p:80", {"m": "m"}),)
    assert table.scope == "p:80"


def test_names_of_one_predictor_come_together_and_keep_their_order(table):
    found = table(
        """
models:
  chat:
  code: {service: code}
  draft: {predictor: "q:9000", predictor_name: small}
  support: {predictor_name: support-v2}
  again: {predictor: chat-predictor.ns, predictor_name: chat}
""",
        model_name="unserved",
        predictor_host="chat-predictor.ns",
    )
    assert found.names == ("chat", "code", "draft", "support", "again")
    assert found.predictors == (
        PredictorModels(
            "chat-predictor.ns:80", {"chat": "chat", "support": "support-v2", "again": "chat"}
        ),
        PredictorModels("code-predictor.ns:80", {"code": "code"}),
        PredictorModels("q:9000", {"draft": "small"}),
    )
    assert [each.first for each in found.predictors] == ["chat", "code", "draft"]
    assert found.scope == "chat-predictor.ns:80,code-predictor.ns:80,q:9000"


def test_tls_is_for_every_predictor(table):
    found = table("models: {a: {predictor: p}}", predictor_use_ssl=True)
    assert found.predictors[0].target == "p:443"


@pytest.mark.parametrize(
    ("text", "host", "told"),
    [
        ("models: [", "p.ns", "is not YAML"),
        ("models: {}", "p.ns", "models: Dictionary should have at least 1 item"),
        ("models: {a: {host: p}}", "p.ns", "models.a.host: Extra inputs are not permitted"),
        ("models: {a: {predictor: 'http://p'}}", "p.ns", "models.a.predictor: String should match"),
        ("models: {'a/b': {}}", "p.ns", "models.a/b: a name is letters"),
        ("models: {a: {predictor: p, service: s}}", "p.ns", "has both predictor and service"),
        ("models: {a: {}}", None, "models.a: needs predictor, for there is no --predictor_host"),
        ("models: {a: {service: s}}", None, "models.a: needs predictor"),
        ("models: {a: {service: s}}", "p:80", "needs a --predictor_host with a namespace, got p"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_with_its_place(table, text, host, told):
    with pytest.raises(UnusableFileError, match=r"models\.yaml") as refused:
        table(text, predictor_host=host)
    assert told in str(refused.value)


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(UnusableFileError, match=r"nowhere.yaml cannot be read"):
        model_table(TransformerSettings(models_file="nowhere.yaml"))
