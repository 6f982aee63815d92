"""Whatever state dict PyTorch saves is read with the same bits."""

import importlib.util
import resource
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.errors import WorkFailed
from tests.support.weight_bombs import limited_memory
from train.models.lrm.published_weights import write_weights
from train.models.weight_files.state_dicts import read_state

DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)
PLAIN = (
    *(None, True, -1, 2**40, 0.5, "text" * 100, [1, [2]], (), (1, 2, 3, 4), {"betas": (0.9, 0.99)}),
    *(
        {3},
        OrderedDict(a=1),
        Counter([2, 2]),
        torch.Size([2]),
        torch.float16,
        b"bytes",
        bytearray(),
    ),
)


def bits(value: Tensor) -> Tensor:
    """Return the bytes of a tensor's values; they compare as equal even where a value is NaN."""
    values = torch.empty(value.numel(), dtype=value.dtype)
    return values.copy_(value.detach().reshape(-1)).view(torch.uint8)


@st.composite
def views(draw: st.DrawFn) -> list[Tensor]:
    """Return views of one storage with any values, shapes, strides and offsets."""
    dtype, numel = draw(st.sampled_from(DTYPES)), draw(st.integers(1, 24))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    limit, size = 2 if dtype == torch.bool else 256, numel * dtype.itemsize
    data = torch.randint(0, limit, (size,), generator=random)
    storage = data.to(torch.uint8).view(dtype)
    tensors: list[Tensor] = [storage, storage]
    for _ in range(draw(st.integers(0, 3))):
        offset, left, shape, strides = draw(st.integers(0, numel - 1)), numel, [], []
        for _ in range(draw(st.integers(0, 3))):
            stride = draw(st.integers(1, 5))
            last = (
                numel - 1 - offset - sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
            )
            size = draw(st.integers(0, min(left, last // stride + 1)))
            shape, strides, left = [*shape, size], [*strides, stride], left // max(size, 1)
            if not size:
                break
        tensors.append(storage.as_strided(shape, strides, offset))
    if dtype.is_floating_point:
        tensors.append(torch.nn.Parameter(draw(st.sampled_from(tensors))))
    return tensors


@settings(max_examples=60, deadline=None)
@given(
    groups=st.lists(views(), min_size=1, max_size=3),
    container=st.sampled_from([None, "state_dict", "weights"]),
    is_archive=st.booleans(),
    plain=st.sampled_from(PLAIN),
)
def test_any_state_dict_is_read_with_the_same_bits(
    groups: list[list[Tensor]], container, is_archive, plain, tmp_path_factory
):
    tensors = OrderedDict(
        (f"{n}.{k}", value) for n, group in enumerate(groups) for k, value in enumerate(group)
    )
    content: Any = {container: tensors, "more": [plain]} if container else tensors
    path = tmp_path_factory.getbasetemp() / "weights.pth"
    torch.save(content, path, _use_new_zipfile_serialization=is_archive)
    read = read_state(path)
    assert list(read) == list(tensors)
    for name, value in tensors.items():
        assert (read[name].dtype, read[name].shape) == (value.dtype, value.shape)
        assert torch.equal(bits(read[name]), bits(value)), name
        if value.numel():
            assert read[name].stride() == value.stride()
            assert read[name].data_ptr() - read[name.split(".")[0] + ".0"].data_ptr() == (
                value.data_ptr() - tensors[name.split(".")[0] + ".0"].data_ptr()
            )


def test_what_is_written_to_the_tensors_does_not_reach_the_file(tmp_path: Path):
    path = tmp_path / "weights.pth"
    torch.save({"weight": torch.ones(4)}, path)
    read_state(path)["weight"].zero_()
    assert torch.equal(read_state(path)["weight"], torch.ones(4))


@pytest.mark.parametrize("is_archive", [True, False])
def test_views_of_one_storage_take_its_memory_once(is_archive, tmp_path: Path):
    path, values = tmp_path / "weights.pth", torch.zeros(2 * 10**6)
    tensors = {str(n): values[n : n + 1] for n in range(40)}
    torch.save(tensors, path, _use_new_zipfile_serialization=is_archive)
    with limited_memory(60_000_000):
        assert len(read_state(path)) == 40


@pytest.mark.parametrize("size", [100, 100_000])
@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_a_disk_without_room_is_one_line_and_leaves_nothing(suffix, size, tmp_path: Path):
    path, before = tmp_path / f"weights.{suffix}", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(WorkFailed, match=rf"--out {path}: .*free space on this disk") as caught:
            write_weights({"weight": torch.ones(10**5)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["alex", "vgg", "squeeze"])
def test_published_files_of_old_versions_are_read_as_pytorch_reads_them(name: str):
    """The heads of LPIPS were saved by a version before 1.6, on a GPU."""
    found = importlib.util.find_spec("lpips")
    assert found is not None
    assert found.origin is not None
    path = Path(found.origin).with_name("weights") / "v0.1" / f"{name}.pth"
    expected = torch.load(path, map_location="cpu", weights_only=True)
    read = read_state(path)
    assert list(read) == list(expected)
    assert all(torch.equal(bits(read[key]), bits(expected[key])) for key in expected)
