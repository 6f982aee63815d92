"""The last line of a build whose environment left objects undone."""

import pytest

from core.errors import WorkFailed
from core.failures import FailureKind, Fault
from pipelines.building.failure_counts import FailureCounts


@pytest.mark.parametrize("kind", FailureKind)
def test_the_environment_leaves_work_undone_and_a_bad_file_does_not(kind: FailureKind):
    failures = FailureCounts()
    failures.require_none_of_environment()
    failures.add(str(kind), "/data/x: it failed")
    if kind.fault is not Fault.INFRASTRUCTURE:
        failures.require_none_of_environment()
        return
    with pytest.raises(WorkFailed) as error:
        failures.require_none_of_environment()
    cause, remedy = str(error.value).split("; ", 1)
    assert cause == f"1 object left undone: {kind} 1 (/data/x: it failed)"
    assert remedy == kind.remedy
    assert "lrm build` again" in remedy


def test_the_line_names_every_kind_and_the_remedy_of_the_largest():
    failures = FailureCounts()
    failures.add("malformed", "not a GLB")
    failures.add("download", "https://host/1: HTTP 503\nand a second line")
    for number in range(1200):
        failures.add("storage", f"{number} " + "x" * 500)
    with pytest.raises(WorkFailed) as error:
        failures.require_none_of_environment()
    line = str(error.value)
    assert line.startswith("1,201 objects left undone: storage 1,200 (0 xxx")
    assert "x...), download 1 (https://host/1: HTTP 503 and a second line); " in line
    assert line.endswith(FailureKind.STORAGE.remedy)
    assert len(line) < 500


def test_a_kind_of_another_package_is_no_fault_of_the_environment():
    failures = FailureCounts()
    failures.add("sdf_failed", "a stage outside the project")
    failures.require_none_of_environment()
    assert failures.counts == {"sdf_failed": 1}
