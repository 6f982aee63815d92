"""The last line of a command that failed, for errors that no command expects."""

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from pipelines.cli.process_setup import describe_failure


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


def test_an_error_of_this_software_keeps_its_traceback():
    assert describe_failure(error_of(lambda: {}[1])) is None
