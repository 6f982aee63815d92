"""DeepSpeed settings from a file: merged into those of the run, which they may not contradict."""

import json

import pytest

from core.errors import BadInput
from train.settings.deepspeed_settings import check_deepspeed, deepspeed_settings
from train.settings.train_config import TrainConfig

PLAIN = {"root": "r", "snapshot": "s", "out": "o"}


def test_a_file_is_read_when_the_configuration_is_loaded_and_stored_in_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keys = {"zero_optimization": {"reduce_bucket_size": 1234}, "wall_clock_breakdown": True}
    (tmp_path / "ds.json").write_text(json.dumps(keys))
    config = TrainConfig.load(PLAIN | {"deepspeed": "ds.json"})
    (tmp_path / "ds.json").unlink()
    assert config.dump()["deepspeed"] == keys
    check_deepspeed(config.deepspeed)
    settings = deepspeed_settings(config, num_parameters=10**9, on_gpu=False)
    assert settings["wall_clock_breakdown"] is True
    assert settings["zero_optimization"]["reduce_bucket_size"] == 1234
    # The other keys of the group keep the values of the run.
    assert settings["zero_optimization"]["stage"] == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train_batch_size": 8}, "train_batch_size cannot be set there; .* --batch-size"),
        ({"zero_optimization": {"stage": 3}}, "zero_optimization.stage .* --zero-stage"),
        ({"bf16": {"enabled": True}}, "bf16 .* --precision"),
        ({"optimizer": {"type": "Adam"}}, r"optimizer .* --optimizer\.\*"),
    ],
)
def test_a_key_that_an_option_sets_is_an_error(given, message):
    with pytest.raises(BadInput, match=message):
        check_deepspeed(given)


@pytest.mark.parametrize("content", [None, "{", "[1]"])
def test_a_file_without_settings_is_an_error_of_one_line(tmp_path, content):
    path = tmp_path / "ds.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadInput, match=r"--deepspeed \S*ds\.json: ") as error:
        TrainConfig.load(PLAIN | {"deepspeed": str(path)})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("num_parameters", [1, 7, 8, 49_999_999, 50_000_001])
@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_buckets_have_an_even_size_that_is_bounded(zero_stage, num_parameters):
    """DeepSpeed ends with an AssertionError for an odd `allgather_bucket_size`."""
    config = TrainConfig.load(PLAIN | {"zero_stage": zero_stage})
    zero = deepspeed_settings(config, num_parameters=num_parameters, on_gpu=False)
    sizes = [value for name, value in zero["zero_optimization"].items() if "bucket_size" in name]
    assert len(sizes) == (1 if zero_stage == 3 else 2)
    assert all(size % 2 == 0 and 0 < size <= 50_000_000 for size in sizes)
