"""The cluster files are valid for Ray, AWS and Kubernetes, checked without running these."""

import copy
import re
import subprocess
from pathlib import Path

import botocore.session
import kubernetes_validate
import pytest
from botocore import xform_name
from jsonschema import ValidationError
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

from core.options import load_config
from pipelines.building.build_config import BuildConfig
from pipelines.cli import make_parser
from render.system_libraries import _PACKAGE_OF_LIBRARY
from tests.support.deploy import AWS, KUBERAY, ON_PREMISE, documented_build, guide_commands, read
from tests.support.paths import REPOSITORY
from tests.support.sources import PACKAGES

RAY_VERSION = re.search(r"^ray==(.+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)[
    1
]
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


@pytest.mark.parametrize("path", [AWS, ON_PREMISE], ids=lambda path: path.name)
def test_ray_accepts_the_file(path: Path) -> None:
    prepared = prepare_config(read(path))
    validate_config(prepared)
    broken = copy.deepcopy(prepared) | {"max_worker": 3}
    with pytest.raises(ValidationError, match="max_worker"):
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
    dockerfile = (REPOSITORY / "deploy/Dockerfile").read_text()
    assert f"FROM {image}\n" in dockerfile
    assert read(KUBERAY)["spec"]["rayClusterSpec"]["rayVersion"] == RAY_VERSION
    setup = " ".join(read(AWS)["setup_commands"])
    for package in _PACKAGE_OF_LIBRARY.values():
        assert f" {package}" in setup
        assert f" {package}" in dockerfile
    packages = {
        name.split("/")[0] for name in re.findall(r"^COPY --chown=ray (\S+) ", dockerfile, re.M)
    }
    assert packages >= set(PACKAGES)
    assert " LICENSE " in dockerfile


def node_types() -> tuple[AutoscalingConfig, list[str]]:
    """Return Ray's configuration of the node types, and the names of the worker types."""
    config = AutoscalingConfig(read(AWS), skip_content_hash=True)
    names = [name for name in config.get_config("available_node_types") if name != "head"]
    return config, names


def docker_options(name: str) -> list[str]:
    """Return a node type's options of `docker run`, joined as Ray's DockerCommandRunner does."""
    docker = node_types()[0].get_docker_config(name)
    own = "head_run_options" if name == "head" else "worker_run_options"
    return docker["run_options"] + docker.get(own, [])


def test_authentication_is_set_and_never_left_to_a_default() -> None:
    config = read(AWS)
    for name in config["available_node_types"]:
        assert docker_options(name).count("--env RAY_AUTH_MODE=token") == 1
    assert "/home/ray/.ray/auth_token" in config["file_mounts"]
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    assert "RAY_AUTH_MODE=token" in " ".join(read(ON_PREMISE)["setup_commands"])
    assert read(KUBERAY)["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_every_worker_is_set_up_whatever_its_type_adds() -> None:
    """Setup commands of a node type replace the common ones."""
    config, names = node_types()
    common = {"apt-get", "chmod 600 ~/.ray/auth_token", "pip install"}
    for name in names:
        commands = " && ".join(config.get_worker_setup_commands(name))
        assert {command for command in common if command in commands} == common, name
        assert all(f" {package}" in commands for package in _PACKAGE_OF_LIBRARY.values())
        assert ("[build,train]" in commands) == (name == "train")


def test_only_render_nodes_can_block_the_network_and_they_mount_no_runs() -> None:
    """Render nodes open untrusted files. No container on a bridge network can use a node's role."""
    config, _ = node_types()
    for name, kind in config.get_config("available_node_types").items():
        options, renders = docker_options(name), "render" in kind["resources"]
        assert ("--security-opt seccomp=unconfined" in options) == renders
        assert ("--volume /mnt/lrm-runs:/home/ray/runs" in options) == (not renders)
        assert bool(config.get_initialization_commands(name)) == (not renders)
        metadata_options = kind["node_config"]["MetadataOptions"]
        assert metadata_options == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    spec = read(KUBERAY)["spec"]["rayClusterSpec"]
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        pod, renders = group["template"]["spec"], "render" in group.get("groupName", "")
        unconfined = {"seccompProfile": {"type": "Unconfined"}}
        assert pod.get("securityContext") == (unconfined if renders else None)
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        mounts = pod["containers"][0].get("volumeMounts", [])
        assert ("runs" in volumes) == (not renders)
        assert ("/home/ray/runs" in [mount["mountPath"] for mount in mounts]) == (not renders)


def test_the_folder_of_runs_is_mounted_if_a_file_system_is_set(tmp_path: Path) -> None:
    commands = read(AWS)["initialization_commands"]
    assert sum(command.count("FS=;") for command in commands) == 1
    # `sudo` only prints its command; everything else runs.
    script = 'sudo() { echo sudo "$@"; }\nmountpoint() { return 1; }\n' + "\n".join(commands)

    def output_of(text: str) -> list[str]:
        result = subprocess.run(["bash", "-euc", text], capture_output=True, text=True, check=True)
        return result.stdout.splitlines()

    without_fs, with_fs = output_of(script), output_of(script.replace("FS=;", "FS=fs-12;"))
    assert len(without_fs) == 2
    assert [line for line in with_fs if line not in without_fs][-1].startswith(
        "sudo mount -t nfs4 "
    )
    assert "fs-12.efs.us-west-2.amazonaws.com:/ /mnt/lrm-runs" in "\n".join(with_fs)
    assert f".efs.{read(AWS)['provider']['region']}." in script
    assert with_fs[-1] == without_fs[-1] == "sudo chown 1000:100 /mnt/lrm-runs"


@pytest.mark.parametrize("name", ["guide", "kuberay"])
def test_the_documented_builds_stay_on_render_nodes_and_wait_for_a_lost_driver(name: str) -> None:
    arguments = make_parser().parse_args(documented_build(name))
    assert arguments.wait
    execution = load_config(BuildConfig, arguments).execution
    assert 0 < execution.fetch_resources["render"] < 0.1
    assert 0 < execution.pack_resources["render"] < 0.1
    assert execution.render_resources == {"render": 1}
    assert execution.render_memory == 3e9


def unknown_to_aws(words: list[str]) -> set[str]:
    """Return the unknown action or options of a call of `aws`, and its missing required options."""
    service, action, *rest = words
    model = botocore.session.get_session().get_service_model(service.replace("s3api", "s3"))
    operations = {xform_name(name, "-"): name for name in model.operation_names}
    if action not in operations:
        return {action}
    shape = model.operation_model(operations[action]).input_shape
    known = {xform_name(name, "-"): name for name in shape.members}
    if action == "authorize-security-group-ingress":
        # Short forms that only the command line has.
        known |= {"protocol": "IpProtocol", "port": "FromPort", "cidr": "CidrIp"}
    given = {word[2:] for word in rest if word.startswith("--")} - {"query", "output", "region"}
    needed = {xform_name(name, "-") for name in shape.required_members}
    return (given - set(known)) | (needed - given)


def test_the_calls_of_aws_in_the_cluster_guide_match_its_api() -> None:
    aws_calls = [words[1:] for words in guide_commands() if words[0] == "aws" and words[1] != "s3"]
    assert len(aws_calls) > 12
    assert [words for words in aws_calls if unknown_to_aws(words)] == []
    assert ["spot.amazonaws.com"] in [words[-1:] for words in aws_calls]
    assert unknown_to_aws(["iam", "create-rolle"]) == {"create-rolle"}
    wrong = ["iam", "create-role", "--rolename", "x", "--assume-role-policy-document", "y"]
    assert unknown_to_aws(wrong) == {"rolename", "role-name"}


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
    assert kinds["render"]["resources"]["memory"] >= 60 * 3e9
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


def test_a_misspelt_field_of_a_pod_is_detected() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}
    spec = {"containers": [{"name": "c", "image": "i", "resource": {}}]}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod | {"spec": spec}, "1.31", strict=True)
