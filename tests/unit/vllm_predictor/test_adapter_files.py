import pytest

from openinference.errors import FailedDependency
from vllm_predictor import adapter_files
from vllm_predictor.adapter_files import Catalog, check, parse_fixed
from vllm_predictor.weights import stamp, weights_id


def test_a_table_of_adapters_is_name_equals_folder(tmp_path):
    assert parse_fixed([f"a={tmp_path}"]) == {"a": tmp_path}


@pytest.mark.parametrize("entry", ["a", "=x", "a=", "../a=x", "a b=x"])
def test_any_other_entry_is_refused(entry):
    with pytest.raises(ValueError, match="NAME=FOLDER"):
        parse_fixed([entry])


def test_an_adapter_named_twice_is_refused():
    with pytest.raises(ValueError, match="twice"):
        parse_fixed(["a=x", "a=y"])


def test_only_folders_with_a_configuration_are_adapters(make_adapter, tmp_path):
    folder = make_adapter("a")
    (tmp_path / "adapters" / "empty").mkdir()
    (tmp_path / "adapters" / "file").write_text("")
    catalog = Catalog({"b": folder}, tmp_path / "adapters")
    assert catalog.names() == ("b", "a")
    assert catalog.find("a") == folder
    assert catalog.find("empty") is None


@pytest.mark.parametrize("name", ["..", "../adapters/a", "a/../a", "/etc", "", ".hidden", "a\0"])
def test_a_name_is_no_path(make_adapter, tmp_path, name):
    make_adapter("a")
    assert Catalog({}, tmp_path / "adapters").find(name) is None


def test_a_link_out_of_the_folder_is_not_followed(make_adapter, tmp_path):
    make_adapter("a").rename(tmp_path / "outside")
    (tmp_path / "adapters" / "linked").symlink_to(tmp_path / "outside")
    assert Catalog({}, tmp_path / "adapters").find("linked") is None


def test_a_new_adapter_is_found_at_once_and_listed_soon(make_adapter, tmp_path, monkeypatch):
    make_adapter("a")
    catalog = Catalog({}, tmp_path / "adapters")
    assert catalog.names() == ("a",)
    make_adapter("b")
    assert catalog.find("b") is not None
    monkeypatch.setattr(adapter_files, "LISTING_S", 0.0)
    assert catalog.names() == ("a", "b")


def test_a_whole_adapter_passes(make_adapter):
    check("a", make_adapter("a"), 16)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"peft_type": "IA3"}, "no LoRA"),
        ({"r": 32}, "rank 32 is over this predictor's 16"),
        ({"rank_pattern": {"q": 64}}, "rank 64"),
        ({"r": "8"}, "no valid rank"),
        ({"use_dora": True}, "no use_dora"),
        ({"modules_to_save": ["lm_head"]}, "no modules_to_save"),
    ],
)
def test_an_adapter_that_the_engine_cannot_run_is_named_with_its_reason(make_adapter, config, told):
    with pytest.raises(FailedDependency, match=told):
        check("a", make_adapter("a", **config), 16)


def test_broken_files_are_found_without_the_engine(make_adapter):
    folder = make_adapter("a")
    weights = folder / "adapter_model.safetensors"
    whole = weights.read_bytes()
    for content in (whole[:-1], whole[:20], b"", b"\xff" * 64):
        weights.write_bytes(content)
        with pytest.raises(FailedDependency, match="cannot be read"):
            check("a", folder, 16)
    weights.unlink()
    with pytest.raises(FailedDependency, match=r"no adapter_model\.safetensors"):
        check("a", folder, 16)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(FailedDependency, match=r"adapter_config\.json"):
        check("a", folder, 16)


def test_the_weights_id_is_that_of_the_contents(make_adapter):
    first = weights_id(make_adapter("a", fill=1.0))
    assert weights_id(make_adapter("b", fill=1.0)) == first
    assert weights_id(make_adapter("a", fill=2.0)) != first


def test_a_large_file_is_sampled_from_its_first_byte_to_its_last(tmp_path, monkeypatch):
    monkeypatch.setattr("vllm_predictor.weights.WHOLE_BYTES", 1000)
    monkeypatch.setattr("vllm_predictor.weights.SAMPLE_BYTES", 100)
    file = tmp_path / "model.safetensors"
    content = bytearray(16_000)
    file.write_bytes(content)
    ids = {weights_id(tmp_path)}
    for place in (0, 99, 15_900, 15_999):
        changed = bytearray(content)
        changed[place] = 1
        file.write_bytes(changed)
        ids.add(weights_id(tmp_path))
    assert len(ids) == 5


def test_the_stamp_changes_with_the_files_and_not_by_itself(make_adapter):
    folder = make_adapter("a")
    before = stamp(folder)
    assert stamp(folder) == before
    (folder / "README.md").write_text("new")
    assert stamp(folder) != before
