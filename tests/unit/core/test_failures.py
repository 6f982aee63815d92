"""The registry of failure kinds, and its page."""

import json
import pickle
import re

import pytest

from core.failures import FailureKind, Fault, Retry, StageFailed, kinds_with_retry
from tests.support.paths import REPOSITORY
from tests.support.sources import PACKAGES, sources

PAGE = REPOSITORY / "docs/reference/failures.md"
FAULTS = {
    Fault.OBJECT: "object",
    Fault.SETTINGS: "settings",
    Fault.INFRASTRUCTURE: "infrastructure",
    Fault.PROJECT: "this software",
}
RETRIES = {
    Retry.NEVER: "no",
    Retry.OTHER_LIMITS: "with other limits",
    Retry.NEXT_BUILD: "by the next build",
    Retry.AT_ONCE: "at once, then by the next build",
}


def test_a_kind_is_its_stored_string() -> None:
    kind = FailureKind.TIMEOUT
    assert kind == "timeout"
    assert json.dumps({"kind": kind}) == '{"kind": "timeout"}'
    assert f"{kind}" == "timeout"
    assert pickle.loads(pickle.dumps(kind)) is kind


def test_the_stored_strings_never_change() -> None:
    """Catalogs store them permanently: add a new kind here, and remove none."""
    assert {kind.value for kind in FailureKind} == set(
        """
        bad_annotation bad_output changed corrupt crash download empty external_reference
        import_error internal_error killed malformed missing no_device no_space no_start
        out_of_memory refused
        sample_damaged staging_lost storage timeout too_large unsupported_extension worker_lost
        """.split()
    )
    assert all(FailureKind.from_name(kind.value) is kind for kind in FailureKind)


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="no failure kind 'gone'"):
        FailureKind.from_name("gone")


def test_infrastructure_faults_are_always_retried_and_other_faults_never() -> None:
    for kind in FailureKind:
        retried = kind in kinds_with_retry(Retry.NEXT_BUILD, Retry.AT_ONCE)
        assert retried == (kind.fault is Fault.INFRASTRUCTURE), kind


def test_a_failure_can_be_pickled() -> None:
    failure = StageFailed(FailureKind.CRASH, "Blender ended", "its log")
    copy = pickle.loads(pickle.dumps(failure))
    assert (copy.kind, str(copy), copy.log_tail) == (failure.kind, "Blender ended", "its log")


def test_the_page_has_the_registrys_row_for_every_kind() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert rows == [
        f"| `{kind}` | {kind.meaning} | {FAULTS[kind.fault]} | {RETRIES[kind.retry]} "
        f"| {kind.remedy} |"
        for kind in FailureKind
    ]


def test_no_kind_is_a_bare_string() -> None:
    """A kind that is written as a string is not checked by any tool."""
    names = "|".join(kind.value for kind in FailureKind)
    bare = re.compile(
        rf"""(?:kind["']?\s*(?:[:=!]=?|in)|Failed\(|Failure\(|GlbError\()[\s({{]*["']({names})["']"""
    )
    literals = [
        f"{path}: {match.group(0)}"
        for path, _ in sources((*PACKAGES, "benchmarks"))
        for match in bare.finditer((REPOSITORY / path).read_text())
    ]
    assert literals == []
    assert bare.search('error.kind == "crash"')
    assert bare.search('if kind in ("timeout", "crash")')
    assert bare.search('raise FetchFailed("missing", text)')
