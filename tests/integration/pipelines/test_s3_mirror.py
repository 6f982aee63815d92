"""Sources in a bucket, on an S3 server on loopback."""

from pathlib import Path

import fsspec
import pytest

from core.errors import BadInput
from pipelines.demo.demo_mirror import CAPTIONS_FILE
from pipelines.sources import FetchFailed, open_source
from pipelines.sources.captions import read_captions
from tests.support.fake_glbs import GOOD, OTHER
from tests.support.listings import changed_parts, objects_of


@pytest.fixture
def mirror(bucket, demo_source: Path) -> str:
    for path in demo_source.rglob("*"):
        if path.is_file():
            bucket.upload_file(str(path), f"mirror/{path.relative_to(demo_source)}")
    return f"s3://{bucket.name}/mirror"


def test_a_mirror_in_a_bucket_equals_the_mirror_in_a_folder(mirror, demo_source, tmp_path):
    remote_captions = read_captions(f"{mirror}/{CAPTIONS_FILE}")
    local_captions = read_captions(str(demo_source / CAPTIONS_FILE))
    assert remote_captions.texts == local_captions.texts
    assert remote_captions.revision == local_captions.revision
    remote, local = open_source(mirror), open_source(str(demo_source))
    assert not remote.is_local
    remote_objects, local_objects = objects_of(remote), objects_of(local)
    assert [item.record for item in remote_objects] == [item.record for item in local_objects]
    assert remote_objects
    for item in remote_objects:
        try:
            remote.fetch(item.record.path, item.version, tmp_path / "x.glb")
        except FetchFailed as error:
            assert error.kind == "malformed"
        else:
            assert (tmp_path / "x.glb").read_bytes() == (
                demo_source / item.record.path
            ).read_bytes()


def test_changes_in_a_bucket_are_detected(mirror, bucket, tmp_path):
    source = open_source(mirror)
    before = {part: source.files(part, False) for part in source.parts()}
    item = objects_of(source)[0]
    bucket.put_object(Key=f"mirror/{item.record.path}", Body=GOOD)
    after = {part: source.files(part, False) for part in source.parts()}
    part = item.record.path.split("/")[1]
    assert changed_parts(before, after) == {part}
    assert changed_parts(before[part], after[part]) == {item.record.asset_id}
    with pytest.raises(FetchFailed) as raised:
        source.fetch(item.record.path, item.version, tmp_path / "x.glb")
    assert raised.value.kind == "changed"
    bucket.Object(f"mirror/{item.record.path}").delete()
    with pytest.raises(FetchFailed) as raised:
        source.fetch(item.record.path, item.version, tmp_path / "x.glb")
    assert raised.value.kind == "missing"
    assert list(tmp_path.iterdir()) == []


def test_a_bucket_of_models_is_a_source(bucket, tmp_path):
    for path, data in {"a/chair.glb": GOOD, "table (2).glb": OTHER}.items():
        bucket.put_object(Key=f"models/{path}", Body=data)
    bucket.put_object(Key="models/objects.csv", Body=b"path,caption\na/chair.glb,a chair\n")
    source = open_source(f"s3://{bucket.name}/models")
    objects = objects_of(source)
    captions = {item.record.asset_id: item.record.caption for item in objects}
    assert captions == {"folder:a/chair": "a chair", "folder:table (2)": None}
    source.fetch(objects[0].record.path, objects[0].version, tmp_path / "x.glb")
    assert (tmp_path / "x.glb").read_bytes() == GOOD


def test_a_missing_bucket_is_refused(endpoint, tmp_path):
    with pytest.raises(BadInput, match="no such folder or bucket"):
        open_source("s3://no-such-bucket/mirror")


def test_an_unreachable_store_is_refused(endpoint, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    s3 = fsspec.get_filesystem_class("s3")
    s3.clear_instance_cache()
    with pytest.raises(BadInput, match="s3://bucket/mirror: cannot read the source"):
        open_source("s3://bucket/mirror")
    s3.clear_instance_cache()
