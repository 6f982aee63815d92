"""The cluster files: what Ray, AWS and Kubernetes make of them, without any of the three."""

import copy
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from moto.server import ThreadedMotoServer
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import TAG_RAY_NODE_KIND

from render.system import _PACKAGE_OF_LIBRARY

HERE = Path(__file__).parents[1]
AWS, ON_PREMISE, KUBERAY = (
    HERE / name for name in ("cluster.yaml", "deploy/on-premise.yaml", "deploy/kuberay-rayjob.yaml")
)
RAY_VERSION = re.search(r"^ray==(.+)$", (HERE / "constraints.txt").read_text(), re.MULTILINE)[1]
RAY_JOB = {
    "entrypoint",
    "entrypointResources",
    "backoffLimit",
    "shutdownAfterJobFinishes",
    "ttlSecondsAfterFinished",
    "rayClusterSpec",
}
RAY_CLUSTER = {
    "rayVersion",
    "authOptions",
    "enableInTreeAutoscaling",
    "autoscalerOptions",
    "headGroupSpec",
    "workerGroupSpecs",
}
WORKER_GROUP = {
    "groupName",
    "replicas",
    "minReplicas",
    "maxReplicas",
    "rayStartParams",
    "template",
}
"""Names of KubeRay's API (ray.io/v1) that the file uses."""


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("path", [AWS, ON_PREMISE], ids=lambda path: path.name)
def test_ray_accepts_the_file(path: Path) -> None:
    prepared = prepare_config(read(path))
    validate_config(prepared)
    broken = copy.deepcopy(prepared) | {"max_worker": 3}
    with pytest.raises(Exception, match="max_worker"):
        validate_config(broken)


def test_the_head_runs_drivers_and_nothing_else() -> None:
    for name, node_type in read(AWS)["available_node_types"].items():
        resources, market = node_type["resources"], node_type["node_config"]
        if name == "head":
            assert resources["CPU"] == 0
            assert resources["head"] > 0
            assert "InstanceMarketOptions" not in market
        else:
            assert resources["CPU"] > 0
            assert "head" not in resources
            assert ("InstanceMarketOptions" in market) == ("render" in resources)


def test_files_name_the_installed_ray_and_the_libraries_that_blender_needs() -> None:
    image = f"rayproject/ray:{RAY_VERSION}-py311-cpu"
    assert read(AWS)["docker"]["image"] == image
    dockerfile = (HERE / "deploy/Dockerfile").read_text()
    assert f"FROM {image}\n" in dockerfile
    assert read(KUBERAY)["spec"]["rayClusterSpec"]["rayVersion"] == RAY_VERSION
    setup = " ".join(read(AWS)["setup_commands"])
    for package in _PACKAGE_OF_LIBRARY.values():
        assert f" {package}" in setup
        assert f" {package}" in dockerfile
    packages = {
        name.split("/")[0] for name in re.findall(r"^COPY --chown=ray (\S+) ", dockerfile, re.M)
    }
    assert packages >= {"dataset", "filters", "render", "train", "pipelines"}


def test_authentication_is_set_and_never_left_to_a_default() -> None:
    config = read(AWS)
    options = [config["docker"]["run_options"]]
    kinds = config["available_node_types"].values()
    options += [kind["docker"]["worker_run_options"] for kind in kinds if "docker" in kind]
    assert len(options) == 3
    assert all("--env RAY_AUTH_MODE=token" in given for given in options)
    assert "/home/ray/.ray/auth_token" in config["file_mounts"]
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    assert "RAY_AUTH_MODE=token" in " ".join(read(ON_PREMISE)["setup_commands"])
    assert read(KUBERAY)["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An account with nothing in it but the two profiles that docs/operating.md makes."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-west-2",
    }.items():
        monkeypatch.setenv(name, value)
    import boto3

    iam = boto3.client("iam")
    for name in ("lrm-head", "lrm-node"):
        trust = (HERE / "deploy/aws/trust.json").read_text()
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)
        for policy in ("storage", "launch") if name == "lrm-head" else ("storage",):
            text = (HERE / f"deploy/aws/{policy}.json").read_text()
            text = text.replace("BUCKET", "example").replace("ACCOUNT", "123456789012")
            iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=text)
        iam.create_instance_profile(InstanceProfileName=name)
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    yield boto3
    server.stop()


def test_every_node_type_starts_with_rays_own_provider(aws) -> None:
    """Ray's AWS code runs against a server that speaks EC2: botocore checks every parameter."""
    config = bootstrap_aws(prepare_config(read(AWS)))
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    ec2 = aws.client("ec2")
    for name, kind in config["available_node_types"].items():
        node = kind["node_config"]
        created = provider.create_node(node, {TAG_RAY_NODE_KIND: name}, 1)
        (instance,) = created.values()
        found = ec2.describe_instances(InstanceIds=[instance.id])
        (seen,) = found["Reservations"][0]["Instances"]
        assert seen["InstanceType"] == node["InstanceType"]
        assert seen["ImageId"] == node["ImageId"]
        spot = "InstanceMarketOptions" in node
        assert (seen.get("InstanceLifecycle") == "spot") == spot
        profile = "lrm-head" if name == "head" else "lrm-node"
        assert seen["IamInstanceProfile"]["Arn"].endswith(f"/{profile}")
    wrong = config["available_node_types"]["render"]["node_config"] | {"InstanceTyp": "x"}
    with pytest.raises(Exception, match="InstanceTyp"):
        provider.create_node(wrong, {TAG_RAY_NODE_KIND: "render"}, 1)


def test_kuberay_and_kubernetes_accept_the_job() -> None:
    job = read(KUBERAY)
    spec = job["spec"]["rayClusterSpec"]
    assert set(job["spec"]) <= RAY_JOB
    assert set(spec) <= RAY_CLUSTER
    assert all(set(group) <= WORKER_GROUP for group in spec["workerGroupSpecs"])
    cluster = {"metadata": {"name": "lrm", "namespace": "default"}, "spec": spec}
    derived = _derive_autoscaling_config_from_ray_cr(cluster)
    kinds = derived["available_node_types"]
    assert kinds["headgroup"]["resources"] | {"memory": 0} == {"CPU": 0, "head": 100, "memory": 0}
    assert kinds["render"]["resources"]["render"] == kinds["render"]["resources"]["CPU"] == 60
    assert kinds["render-gpu"]["resources"]["GPU"] == 1
    assert kinds["train"]["resources"] | {"memory": 0} == {
        "CPU": 90,
        "GPU": 8,
        "train": 8,
        "memory": 0,
    }
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "x"},
            "spec": group["template"]["spec"],
        }
        kubernetes_validate.validate(pod, "1.31", strict=True)


def test_a_misspelt_field_of_a_pod_is_found() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}
    spec = {"containers": [{"name": "c", "image": "i", "resource": {}}]}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod | {"spec": spec}, "1.31", strict=True)
