"""Named pipes, sockets and devices are refused at once wherever a file is expected."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.errors import BadInput, Damaged
from core.paths.regular_file import open_regular, require_regular
from core.paths.yaml_file import read_yaml
from core.storage import Storage
from pipelines.sources import open_source
from pipelines.sources.captions import read_captions
from train.inference.input_pictures import read_picture
from train.inference.views_file import VIEWS_FILE, read_distance
from train.monitoring.metrics_log import METRICS, read_metrics
from train.monitoring.run_file import RUN_FILE, read_run
from train.settings.deepspeed_file import read_deepspeed

READERS: dict[str, Callable[[Path], object]] = {
    "open": open_regular,
    "require": require_regular,
    "storage open": lambda path: Storage(path.parent).open(path.name),
    "storage read": lambda path: Storage(path.parent).read(path.name),
    "storage get": lambda path: Storage(path.parent).get(path.name, path.with_name("copy")),
    "storage spans": lambda path: Storage(path.parent).read_spans(path.name, [(0, 1)]),
    "configuration": lambda path: read_yaml(str(path)),
    "captions": lambda path: read_captions(str(path)),
    "deepspeed": lambda path: read_deepspeed(str(path)),
    "picture": read_picture,
    "views": lambda path: read_distance(linked(path, VIEWS_FILE)),
    "run": lambda path: read_run(linked(path, RUN_FILE)),
    "metrics": lambda path: read_metrics(linked(path, METRICS)),
}


def linked(path: Path, name: str) -> Path:
    """Return a folder in which the file has another name."""
    (path.parent / name).symlink_to(path)
    return path.parent


@pytest.fixture(params=["named pipe", "socket", "link to a device"])
def special(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "special"
    with socket.socket(socket.AF_UNIX) as server:
        if request.param == "named pipe":
            os.mkfifo(path)
        elif request.param == "socket":
            # The name of a socket may have 107 bytes.
            folder = os.open(tmp_path, os.O_DIRECTORY)
            server.bind(f"/proc/self/fd/{folder}/special")
            os.close(folder)
        else:
            path.symlink_to("/dev/zero")
        yield path


@pytest.mark.parametrize("reader", READERS)
def test_no_reader_waits_for_a_file_that_never_ends(special: Path, reader: str) -> None:
    with pytest.raises((OSError, BadInput, Damaged), match=r"(pipe|socket|device), not a regular"):
        READERS[reader](special)


def test_a_pipe_that_the_shell_opened_is_read() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"limit: 3\n")
    os.close(writer)
    assert read_yaml(f"/dev/fd/{reader}") == {"limit": 3}
    os.close(reader)


def test_files_and_their_links_are_read_and_folders_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("limit: 3\n")
    (tmp_path / "link").symlink_to("file")
    assert read_yaml(str(tmp_path / "link")) == {"limit": 3}
    with pytest.raises(BadInput, match="directory"):
        read_yaml(str(tmp_path))


def test_a_mirror_with_a_pipe_as_its_table_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "object-paths.json.gz")
    with pytest.raises(BadInput, match="named pipe"):
        open_source(str(tmp_path)).parts()
