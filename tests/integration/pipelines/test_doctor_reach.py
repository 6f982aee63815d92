"""`lrm doctor`: an unreachable hub, and roots on disk and in S3."""

import socket
from typing import Any

from core.storage import Storage
from pipelines.doctor.reach import check_root_uri
from tests.support.findings import findings


def test_an_unreachable_hub_is_missing():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (finding,) = findings("hub", HF_ENDPOINT=f"http://127.0.0.1:{port}").values()
    assert finding["state"] == "missing"
    assert "HF_ENDPOINT" in finding["remedy"]


def states(uri: str) -> dict[str, Any]:
    return {item.what: item.state for item in check_root_uri(uri)}


def test_a_root_on_disk(sphere_dataset, tmp_path):
    root, _ = sphere_dataset
    assert states(root.uri) == {"root": "ok"}
    assert states(str(tmp_path / "new")) == {"root": "ok"}
    (tmp_path / "foreign.txt").write_text("")
    assert states(str(tmp_path)) == {"root": "missing"}
    assert states("nonsense://x") == {"root": "missing"}


def test_a_root_in_s3(bucket, monkeypatch, tmp_path):
    uri = f"s3://{bucket.name}/root"
    assert states(uri) == {"S3 credentials": "ok", "root": "ok"}
    assert states("s3://no-such-bucket-here/root")["root"] == "missing"
    Storage(uri).write("dataset.json", b'{"format": 999}')
    assert states(uri)["root"] == "missing"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert states(uri)["S3 credentials"] == "missing"
