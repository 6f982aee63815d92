"""What every test shares: shape checks, the mirror, and a small dataset without Blender."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import hypothesis
import pytest
from jaxtyping import install_import_hook

import tests.shapes

# Test processes share the cores: small tensors gain nothing from more threads, and lose much.
# Before torch is imported, here and in what tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Before any test imports them: every jaxtyping annotation of these rooms is checked at run time.
_HOOK = install_import_hook(
    [
        "dataset.cameras",
        "dataset.encoding",
        "dataset.geometry",
        "dataset.views",
        "filters",
        "render",
        "train",
    ],
    f"{tests.shapes.__name__}.check",
)

from benchmarks.spheres import write_spheres
from dataset.storage import Storage

# The machines of a check are shared: how long one example takes says nothing.
hypothesis.settings.register_profile("shared-machine", deadline=None)
hypothesis.settings.load_profile("shared-machine")

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def mirror() -> Path:
    """A mirror of real models in Objaverse's layout, with labels.json."""
    default = REPOSITORY.parent / "shared" / "objaverse"
    folder = Path(os.environ.get("LRM_TEST_MIRROR", default))
    if not (folder / "labels.json").exists():
        pytest.skip(f"no mirror with labels.json at {folder}; set LRM_TEST_MIRROR")
    return folder


@pytest.fixture(scope="session")
def sphere_dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Storage, str]:
    """A root with one shard of six spheres, and a snapshot of them."""
    return write_spheres(tmp_path_factory.mktemp("spheres"))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A server that speaks S3, and the environment that leads to it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    here = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in here.items():
            patch.setenv(name, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield address
        fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.stop()


@pytest.fixture
def bucket(endpoint: str) -> Iterator:
    """An empty bucket of the test's own."""
    import boto3

    client = boto3.resource("s3")
    bucket = client.create_bucket(Bucket=f"bucket-{uuid.uuid4().hex[:12]}")
    yield bucket
    bucket.objects.all().delete()
    bucket.delete()
