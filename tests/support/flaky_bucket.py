"""A dataset's root in a bucket of an unreliable object store, and the output of commands on it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
import fsspec
import pytest

from core.storage import Storage
from tests.support.flaky_store import flaky_store, switch_faults
from tests.support.lrm import Answer, run_lrm

SECRET = "very-secret-access-key"


@dataclass(frozen=True)
class FlakyBucket:
    """The root, the address of its server, and the collected output of commands."""

    server: str
    root: str = "s3://lake/data"
    printed: list[str] = field(default_factory=list)

    def run(self, *words: Any, lrm: Callable[..., Answer] = run_lrm) -> Answer:
        """Run a command and collect its output."""
        answer = lrm(*words)
        self.printed.extend([answer.out, answer.err])
        return answer

    def assert_no_credential_was_written(self, *folders: str) -> None:
        """Assert that the secret is neither in the output nor in the bucket.

        The bucket must contain `folders`, so that the check covers them.
        """
        assert len(self.printed) >= 10
        assert not any(SECRET in text for text in self.printed)
        switch_faults(self.server, on=False)
        bucket = Storage("s3://lake")
        names = [name for name in bucket.find_files("") if not name.startswith("many/")]
        for folder in folders:
            assert any(name.startswith(f"{folder}/") for name in names), folder
        for name in names:
            assert SECRET.encode() not in bucket.read(name), name
        switch_faults(self.server, on=True)


def _short_delay(base: float, growth_factor: float, attempts: int) -> float:
    return 0.02 * attempts


@contextmanager
def flaky_bucket() -> Iterator[FlakyBucket]:
    """Yield an empty root; during the block, the environment selects its server."""
    with flaky_store() as address, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        # The client waits up to 1, 2, 4 ... seconds after a fault, for which the tests would wait.
        patch.setattr("botocore.retryhandler.delay_exponential", _short_delay)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        boto3.resource("s3").create_bucket(Bucket="lake")
        yield FlakyBucket(address)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
