"""Fixtures of all tests: shape checks, small datasets, a Ray cluster, Blender, an S3 server."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import hypothesis
import pytest
from jaxtyping import install_import_hook

import tests.support.shape_checks

# Several test processes share the cores, and more threads make small tensors slower. This must be
# set before torch is imported, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Check shapes in annotations at run time. The hook must exist before a test imports the modules.
_HOOK = install_import_hook(
    tests.support.shape_checks.modules_with_shapes(), f"{tests.support.shape_checks.__name__}.check"
)

import json
import os
import shutil
from collections.abc import Callable

from core.storage import Storage
from pipelines.demo.demo_mirror import write_demo_source
from render.process import BlenderProcess
from render.render_config import BlenderLimits
from tests.support.analytic_shapes import letter_block, write_boxes, write_sphere
from tests.support.damage_table import SNAPSHOT, DamageTable
from tests.support.datasets import BuiltDataset, create_once
from tests.support.lrm import Answer, run_lrm
from tests.support.oracle import Oracle
from tests.support.paths import REPOSITORY
from tests.support.sphere_datasets import add_sphere_geometry, write_sphere_dataset

# The machine is shared, so the duration of one example is no reason to fail.
hypothesis.settings.register_profile("shared-machine", deadline=None)
hypothesis.settings.load_profile("shared-machine")


@pytest.fixture(scope="session")
def mirror() -> Path:
    """Return a mirror of real models in Objaverse's layout, with labels.json."""
    default = REPOSITORY.parent / "shared" / "objaverse"
    folder = Path(os.environ.get("LRM_TEST_MIRROR", default))
    if not (folder / "labels.json").exists():
        pytest.skip(f"no mirror with labels.json at {folder}; set LRM_TEST_MIRROR")
    return folder


@pytest.fixture(scope="session")
def sphere_dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Storage, str]:
    """Return a root with one shard of six spheres, and the id of a snapshot of them."""
    return write_sphere_dataset(tmp_path_factory.mktemp("spheres"))


@pytest.fixture(scope="session")
def surface_dataset(
    sphere_dataset: tuple[Storage, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Storage, str]:
    """Return the same six spheres with exact companion geometry, of 12,000 points each."""
    root, snapshot = sphere_dataset
    folder = tmp_path_factory.mktemp("surfaces") / "root"
    shutil.copytree(root.uri, folder)
    copy = Storage(str(folder))
    return copy, add_sphere_geometry(copy, snapshot)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Start an S3 server for the session; yield its address."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture(scope="module")
def endpoint(s3_server: str) -> Iterator[str]:
    """Yield the address of the S3 server; during the module, the environment selects it."""
    variables = {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield s3_server
        fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """Start a Ray cluster for this test process; yield its address.

    Commands and tests connect to it and must not stop it.
    """
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        # Newer versions of Ray require a token even on one machine. Workers import this checkout.
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        resources = {"num_cpus": 4, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=resources)
        yield cluster.address
        cluster.shutdown()


@pytest.fixture
def bucket(endpoint: str) -> Iterator:
    """Create an empty bucket for one test."""
    import boto3

    client = boto3.resource("s3")
    bucket = client.create_bucket(Bucket=f"bucket-{uuid.uuid4().hex[:12]}")
    yield bucket
    bucket.objects.all().delete()
    bucket.delete()


@pytest.fixture(scope="session")
def lrm() -> Callable[..., Answer]:
    """Return the function that runs the command line in this process."""
    return run_lrm


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Return a folder that all test processes share."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def demo_source(shared_folder: Path) -> Path:
    """Return the mirror of the demo, written once for all test processes."""
    folder = shared_folder / "source"
    create_once(folder, lambda: write_demo_source(folder))
    return folder


@pytest.fixture(scope="session")
def built_dataset(
    demo_source: Path, shared_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> BuiltDataset:
    """Return this process's copy of the demo dataset, built without Ray; do not change it."""
    shared_copy = BuiltDataset(shared_folder / "built", demo_source)

    def build() -> None:
        answer = run_lrm("build", *shared_copy.words, "--root", shared_copy.root)
        assert answer.code == 0, answer.err

    create_once(shared_copy.root, build)
    own_copy = BuiltDataset(tmp_path_factory.mktemp("dataset") / "root", demo_source)
    shutil.copytree(shared_copy.root, own_copy.root)
    return own_copy


@pytest.fixture(scope="session")
def damage_table(
    built_dataset: BuiltDataset, tmp_path_factory: pytest.TempPathFactory
) -> DamageTable:
    """Return a copy of the demo dataset with a snapshot, for commands on damaged copies of it."""
    base = tmp_path_factory.mktemp("damaged")
    shutil.copytree(built_dataset.root, base / "root")
    assert run_lrm("snapshot", "--root", base / "root", "--name", SNAPSHOT).code == 0
    return DamageTable(base, tmp_path_factory.mktemp("copies"))


@pytest.fixture
def oracle() -> Callable[[str], Oracle]:
    """Return a function that loads an oracle by name, or skips the test if there is none."""
    folder = Path(os.environ.get("LRM_TEST_ORACLES") or REPOSITORY.parent / "shared" / "oracles")

    def load(name: str) -> Oracle:
        description = folder / f"{name}.json"
        if not description.is_file():
            pytest.skip(f"no oracle {name} in {folder} (LRM_TEST_ORACLES names another folder)")
        load_file = pytest.importorskip("safetensors.torch").load_file
        config = json.loads(description.read_text())["config"]
        return Oracle(name, config, load_file(folder / f"{name}.safetensors"))

    return load


@pytest.fixture(scope="session")
def blender() -> Iterator[BlenderProcess]:
    """Start a Blender child for this test process, with default limits. Tests must not kill it.

    It is not replaced after a number of objects, because tests compare its process id.
    """
    with BlenderProcess(BlenderLimits(objects_per_child=100_000)) as process:
        yield process


@pytest.fixture(scope="session")
def block(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the GLB of the block with the letter; its longest side is 2, as after normalising."""
    return write_boxes(tmp_path_factory.mktemp("bodies") / "block.glb", letter_block())


@pytest.fixture(scope="session")
def sphere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the GLB of a sphere of radius 1 around the origin."""
    return write_sphere(tmp_path_factory.mktemp("bodies") / "sphere.glb")
