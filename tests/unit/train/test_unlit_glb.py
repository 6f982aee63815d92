"""Mesh files of other programs are read in a confined process, whatever they contain."""

import resource
from pathlib import Path

import pytest

from core.errors import WorkFailed
from pipelines.evaluation.evaluate_meshes import MeshFolder
from render.process import BlenderProcess
from render.render_config import BlenderLimits

PLY = b"ply\nformat binary_little_endian 1.0\nelement vertex 400000000000\nproperty float x\n"
HOSTILE = {
    "huge.ply": PLY + b"property float y\nproperty float z\nend_header\n",
    "text.obj": b"v a b c\nf 1 2 3\n",
    "empty.ply": b"",
    "other.obj": b"mtllib other.mtl\nusemtl a\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nf 1/1 2/1 9/1\n",
}


def test_a_hostile_mesh_is_refused_with_one_line(tmp_path: Path):
    for name, content in HOSTILE.items():
        (tmp_path / name).write_bytes(content)
    folder = MeshFolder(tmp_path, BlenderProcess(BlenderLimits()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in HOSTILE:
        with pytest.raises(WorkFailed, match="cannot read this file as a mesh") as caught:
            folder.render(Path(name).stem, [], "cube", 32, 10, 0)
        assert str(caught.value).startswith(f"{tmp_path / name}: ")
        assert "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10
