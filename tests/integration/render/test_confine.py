"""What a Blender child cannot do, asked of the kernel."""

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
    """Containers may forbid namespaces; `lrm doctor` says so."""
    done = run_script("from render.blender.confine import main; raise SystemExit(main())")
    if done.returncode:
        pytest.skip(f"this system does not take the network away: {done.stdout}")


@pytest.fixture
def server() -> Iterator[int]:
    """The port of a server on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


CONNECT = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), timeout=5)"


def test_no_way_to_any_network(confinable, server):
    assert run_script(CONNECT, server).returncode == 0
    alone = run_script(f"from render.blender.confine import confine; confine(); {CONNECT}", server)
    assert alone.returncode != 0
    assert "unreachable" in alone.stderr.lower() or "refused" in alone.stderr.lower()


WITHOUT_MAPS = """
import pathlib, sys
from render.blender.confine import confine

def refuse(path, text):
    raise PermissionError(f"{path}: as AppArmor refuses it")

write, pathlib.Path.write_text = pathlib.Path.write_text, refuse
print(confine())
write(pathlib.Path(sys.argv[1]), "made")
"""


def test_where_users_have_no_name_in_a_namespace_the_network_is_gone_all_the_same(
    confinable, server, tmp_path: Path
):
    done = run_script(WITHOUT_MAPS, tmp_path / "made")
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr
    assert (tmp_path / "made").stat().st_uid == os.getuid()
    connect = CONNECT.replace("argv[1]", "argv[2]")
    alone = run_script(WITHOUT_MAPS + connect, tmp_path / "made", server)
    assert alone.returncode != 0
    assert "unreachable" in alone.stderr.lower() or "refused" in alone.stderr.lower()


def test_files_keep_their_owner(confinable, tmp_path: Path):
    code = (
        "from render.blender.confine import confine; import sys; confine(); open(sys.argv[1], 'w')"
    )
    done = run_script(code, tmp_path / "made")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "made").stat().st_uid == os.getuid()


def test_a_file_cannot_fill_the_disk(tmp_path: Path):
    code = (
        "from render.blender.confine import confine; import sys; confine(); "
        "f = open(sys.argv[1], 'wb'); f.truncate(5 << 30)"
    )
    done = run_script(code, tmp_path / "large")
    assert done.returncode != 0
    assert (tmp_path / "large").stat().st_size == 0


def test_a_real_child_is_confined(confinable, block: Path):
    with BlenderProcess(BlenderLimits()) as blender:
        blender.open(block, "cube")
        assert blender.pid is not None
        own, its = (Path(f"/proc/{pid}/ns/net").readlink() for pid in ("self", blender.pid))
        assert own != its
        child = psutil.Process(blender.pid)
        assert child.rlimit(resource.RLIMIT_CORE) == (0, 0)
        assert child.rlimit(resource.RLIMIT_NOFILE)[1] <= 4096
        assert child.rlimit(resource.RLIMIT_FSIZE)[1] == 4 << 30


def test_blender_runs_no_script_of_a_file():
    done = run_script(
        "import bpy, os; print(bpy.context.preferences.filepaths.use_scripts_auto_execute, "
        "flush=True); os._exit(0)"
    )
    assert done.stdout.split()[-1] == "False"
