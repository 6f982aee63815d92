"""Two writers of one catalog in a bucket, on a network with faults."""

import pytest

from core.storage import Storage
from dataset.catalog.event_log import Catalog, Event
from tests.support.datasets import event_outcomes
from tests.support.flaky_bucket import flaky_bucket


@pytest.fixture
def stored():
    with flaky_bucket() as dataset:
        yield dataset


def test_two_committers_lose_and_repeat_no_event(stored):
    """Delta Lake's conditional puts work when two writers commit alternately."""
    root = Storage("s3://lake/twice")
    writers = [Catalog(root), Catalog(root)]
    for batch in range(1, 6):
        for number, writer in enumerate(writers):
            event = Event(asset_id=f"files:{number}-{batch}", stage="list")
            writer.commit([event], f"run {number}", batch)
            # Repeated, as after a response that was lost.
            writer.commit([event], f"run {number}", batch)
    asset_ids = [row[0] for row in event_outcomes(root)]
    assert len(asset_ids) == len(set(asset_ids)) == 10
