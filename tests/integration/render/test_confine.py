"""The confinement of the Blender child by the kernel: network, files, limits."""

import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from render.process import BlenderProcess
from render.render_config import BlenderLimits
from tests.support.scripts import run_script


@pytest.fixture(scope="module")
def confinable() -> None:
    """Skip where namespaces are forbidden, as in some containers; `lrm doctor` reports that."""
    result = run_script("from core.confined.confine import main; raise SystemExit(main())")
    if result.returncode:
        pytest.skip(f"this system forbids network namespaces: {result.stdout}")


@pytest.fixture
def server() -> Iterator[int]:
    """Return the port of a server on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


CONNECT = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=5)"


def test_no_way_to_any_network(confinable, server):
    assert run_script(CONNECT, server).returncode == 0
    confined = run_script(
        f"from core.confined.confine import confine; confine(); {CONNECT}", server
    )
    assert confined.returncode != 0
    assert "unreachable" in confined.stderr.lower() or "refused" in confined.stderr.lower()


WITHOUT_MAPS = """
import pathlib, sys
from core.confined.confine import confine

def deny(path, text):
    raise PermissionError(f"{path}: denied as by AppArmor")

write, pathlib.Path.write_text = pathlib.Path.write_text, deny
print(confine())
write(pathlib.Path(sys.argv[1]), "made")
"""


def test_the_network_is_gone_without_user_id_maps(confinable, server, tmp_path: Path):
    result = run_script(WITHOUT_MAPS, tmp_path / "made")
    assert (result.returncode, result.stdout) == (0, "\n"), result.stderr
    assert (tmp_path / "made").stat().st_uid == os.getuid()
    connect = CONNECT.replace("argv[1]", "argv[2]")
    confined = run_script(WITHOUT_MAPS + connect, tmp_path / "made", server)
    assert confined.returncode != 0
    assert "unreachable" in confined.stderr.lower() or "refused" in confined.stderr.lower()


def test_files_keep_their_owner(confinable, tmp_path: Path):
    code = (
        "from core.confined.confine import confine; import sys; confine(); open(sys.argv[1], 'w')"
    )
    result = run_script(code, tmp_path / "made")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "made").stat().st_uid == os.getuid()


def test_a_file_cannot_fill_the_disk(tmp_path: Path):
    code = (
        "from core.confined.confine import confine; import sys; confine(); "
        "f = open(sys.argv[1], 'wb'); f.truncate(5 << 30)"
    )
    result = run_script(code, tmp_path / "large")
    assert result.returncode != 0
    assert (tmp_path / "large").stat().st_size == 0


def test_a_real_child_is_confined(confinable, block: Path):
    with BlenderProcess(BlenderLimits()) as blender:
        blender.open(block, "cube")
        assert blender.pid is not None
        own_namespace, child_namespace = (
            Path(f"/proc/{pid}/ns/net").readlink() for pid in ("self", blender.pid)
        )
        assert own_namespace != child_namespace
        child = psutil.Process(blender.pid)
        assert child.rlimit(resource.RLIMIT_CORE) == (0, 0)
        assert child.rlimit(resource.RLIMIT_NOFILE)[1] <= 4096
        assert child.rlimit(resource.RLIMIT_FSIZE)[1] == 4 << 30


def test_blender_runs_no_script_of_a_file():
    result = run_script(
        "import bpy, os; print(bpy.context.preferences.filepaths.use_scripts_auto_execute, "
        "flush=True); os._exit(0)"
    )
    assert result.stdout.split()[-1] == "False"
