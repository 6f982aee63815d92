"""The last line of a command that failed, for errors that no command expects."""

import contextlib
import errno
import os
import tempfile
import zipfile

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from deltalake.exceptions import DeltaError

from core.errors import WorkFailed
from core.monitoring.last_error import describe_failure
from dataset.catalog.panic_text import without_panic_text
from tests.support.lrm import run_lrm


def error_of(action) -> BaseException:
    with pytest.raises(BaseException) as caught:
        action()
    return caught.value


def test_a_panic_of_a_library_in_rust_is_one_line(tmp_path):
    rows = pa.table({"a": [1]})
    error = error_of(lambda: write_deltalake(str(tmp_path / "[1]"), rows))
    assert not isinstance(error, Exception)
    failure = describe_failure(error)
    assert failure is not None
    assert failure.exit_code == 1
    assert failure.line.startswith("error: a library failed: Invalid object store url")
    assert failure.line.isprintable()


def test_an_error_of_the_system_names_the_file(tmp_path):
    failure = describe_failure(error_of((tmp_path / "a\nb").read_bytes))
    assert failure is not None
    assert failure.exit_code == 1
    assert failure.line == f"error: [Errno 2] No such file or directory: '{tmp_path}/a\\nb'"


@pytest.mark.parametrize(
    ("error", "problem", "remedy"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "a"),
            "No space left on device: 'a'",
            "free",
        ),
        (
            OSError(errno.EMFILE, "Too many open files", "a"),
            "Too many open files: 'a'",
            "ulimit -n",
        ),
        (OSError(errno.EROFS, "Read-only file system", "a"), "Read-only file system: 'a'", "mount"),
        (
            OSError(errno.EIO, "Input/output error", "a"),
            "Input/output error: 'a'",
            "check the disk",
        ),
        (MemoryError(), "not enough memory: MemoryError", "more memory"),
        (
            pa.ArrowMemoryError("malloc of size 9 failed"),
            "not enough memory: malloc",
            "more memory",
        ),
        (RuntimeError("can't start new thread"), "can't start new thread", "ulimit -u"),
    ],
)
def test_an_error_of_the_machine_says_what_to_do(error, problem, remedy):
    failure = describe_failure(error)
    assert failure is not None
    assert failure.exit_code == 1
    assert "internal error" not in failure.line
    assert problem in failure.line
    assert remedy in failure.line.partition("; ")[2]


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        (
            "ROOT/catalog: cannot use the catalog: x: No space left on device (os error 28)",
            "; free",
        ),
        ("--out x: cannot write: Too many open files", "; allow more open files: `ulimit -n 1024`"),
        ("x: Read-only file system", "; mount this disk for writing"),
        ("x: No space left on device: free 3 GB", ""),
        ("x: Is a directory: `lrm list`", "; move this folder away"),
        ("x: Is a directory; restore the file, or delete it", ""),
        ("x: Too many levels of symbolic links; `rm -rf x`", ""),
        ("x: no sample", ""),
    ],
)
def test_a_line_that_reports_an_error_of_the_machine_says_what_to_do(text, remedy):
    failure = describe_failure(WorkFailed(text))
    assert failure is not None
    assert failure.line.startswith(f"error: {text}")
    assert failure.line.removeprefix(f"error: {text}").startswith(remedy)
    assert bool(remedy) == (failure.line != f"error: {text}")


def test_a_tree_of_causes_is_one_line():
    error = OSError(
        "Kernel error\n  \x1b[31m\u21b3\x1b[0m Generic error\n   \x1b[31m\u21b3\x1b[0m gone\n"
    )
    failure = describe_failure(error)
    assert failure is not None
    assert failure.line == "error: Kernel error: Generic error: gone"


@pytest.fixture
def temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


class LibraryError(Exception):
    """An error whose text has line breaks and a colour."""

    def __str__(self) -> str:
        return "first\x1b[31m\nsecond"


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), RecursionError(), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
     zipfile.BadZipFile(), pa.ArrowInvalid("a\nb"), DeltaError("c"), LibraryError()],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_a_bug_is_one_line_that_names_a_file_with_its_traceback(temporary_folder, error):
    def work():
        raise error

    failure = describe_failure(error_of(work))
    assert failure is not None
    assert failure.exit_code == 1
    assert failure.line.startswith(f"error: internal error: {type(error).__name__}: ")
    assert failure.line.isprintable()
    (file,) = temporary_folder.iterdir()
    place = f"{__file__}:{work.__code__.co_firstlineno + 1}"
    assert failure.line.endswith(f" ({place}); this is a bug: report it with the file {file}")
    assert "Traceback" in file.read_text()
    assert ", in work\n    raise error" in file.read_text()
    assert file.stat().st_mode & 0o077 == 0


def test_a_bug_is_one_line_also_without_a_folder_for_its_traceback(temporary_folder, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(temporary_folder / "gone"))
    failure = describe_failure(error_of(lambda: {}[1]))
    assert failure is not None
    assert "internal error: KeyError: 1 (" in failure.line
    assert "its traceback cannot be stored: " in failure.line


def test_an_exit_that_a_library_asks_for_is_no_failure():
    assert describe_failure(SystemExit(2)) is None


def test_a_command_with_a_bug_ends_with_one_line(temporary_folder, monkeypatch):
    monkeypatch.setattr("pipelines.cli.registry.CommandEntry.add", lambda *_: {}[1])
    with pytest.raises(AssertionError, match="KeyError: 1"):
        run_lrm("status")
    assert not [*temporary_folder.iterdir()]


PANIC = b"""
thread 'tokio-runtime-worker' (5) panicked at /x/buffered.rs:369:41:
Already shut down
stack backtrace:
note: run with `RUST_BACKTRACE=1`
"""


@pytest.mark.parametrize(
    ("written", "kept"), [(b"a\n", b"a\n"), (b"a\n" + PANIC, b"a\n"), (PANIC, b"")]
)
def test_the_text_of_a_panic_is_not_printed(capfd, written, kept):
    with contextlib.suppress(ZeroDivisionError), without_panic_text():
        os.write(2, written)
        assert capfd.readouterr().err == ""
        raise ZeroDivisionError
    os.write(2, b"after")
    assert capfd.readouterr().err.encode() == kept + b"after"
