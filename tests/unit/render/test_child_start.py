"""A Blender child that cannot be started is a fault of the machine."""

import resource
from pathlib import Path

import pytest

from render.process import BlenderProcess, RenderFailure
from render.render_config import BlenderLimits


def test_a_process_without_free_files_starts_no_child(tmp_path: Path) -> None:
    limit, maximum = resource.getrlimit(resource.RLIMIT_NOFILE)
    with BlenderProcess(BlenderLimits()) as blender:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, maximum))
        try:
            with pytest.raises(RenderFailure, match="open files") as caught:
                blender.open(tmp_path / "chair.glb", "cube")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, maximum))
    assert caught.value.kind == "no_start"
