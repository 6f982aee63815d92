"""The AWS files, run by Ray's provider against a server that speaks EC2, IAM and S3."""

import json

import pytest
from botocore.exceptions import ParamValidationError
from moto.server import ThreadedMotoServer
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config
from ray.autoscaler.tags import TAG_RAY_NODE_KIND

from core.options import load_config
from pipelines.building.build_config import BuildConfig
from pipelines.cli import make_parser
from tests.support.deploy import AWS, documented_build, read
from tests.support.paths import REPOSITORY


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory):
    """Set up an account that holds only the two profiles of docs/guide/cluster.md."""
    monkeypatch = pytest.MonkeyPatch()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
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
        trust = (REPOSITORY / "deploy/aws/trust.json").read_text()
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)
        for policy in ("storage", "launch") if name == "lrm-head" else ("storage",):
            text = (REPOSITORY / f"deploy/aws/{policy}.json").read_text()
            text = text.replace("BUCKET", "example").replace("ACCOUNT", "123456789012")
            iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=text)
        iam.create_instance_profile(InstanceProfileName=name)
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    yield boto3
    server.stop()
    monkeypatch.undo()


def test_rays_provider_starts_every_node_type(aws) -> None:
    """Ray's AWS code calls a server that speaks EC2, and botocore checks every parameter."""
    config = bootstrap_aws(prepare_config(read(AWS)))
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    ec2 = aws.client("ec2")
    for name, kind in config["available_node_types"].items():
        node = kind["node_config"]
        created = provider.create_node(node, {TAG_RAY_NODE_KIND: name}, 1)
        (instance,) = created.values()
        description = ec2.describe_instances(InstanceIds=[instance.id])
        (actual,) = description["Reservations"][0]["Instances"]
        assert actual["InstanceType"] == node["InstanceType"]
        assert actual["ImageId"] == node["ImageId"]
        spot = "InstanceMarketOptions" in node
        assert (actual.get("InstanceLifecycle") == "spot") == spot
        profile = "lrm-head" if name == "head" else "lrm-node"
        assert actual["IamInstanceProfile"]["Arn"].endswith(f"/{profile}")
    wrong = config["available_node_types"]["render"]["node_config"] | {"InstanceTyp": "x"}
    with pytest.raises(ParamValidationError, match="InstanceTyp"):
        provider.create_node(wrong, {TAG_RAY_NODE_KIND: "render"}, 1)


def test_a_render_node_has_the_memory_that_its_renders_reserve(aws) -> None:
    """Holds for the node memory that Ray's provider computes from the instance type."""
    config = prepare_config(read(AWS))
    config = AWSNodeProvider.fillout_available_node_types_resources(bootstrap_aws(config))
    execution = load_config(
        BuildConfig, make_parser().parse_args(documented_build("manual"))
    ).execution
    for name in ("render", "render_gpu"):
        resources = config["available_node_types"][name]["resources"]
        assert resources["memory"] >= resources["render"] * execution.render_memory


def test_the_bucket_aborts_incomplete_uploads(aws) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(
        Bucket="example", CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
    )
    rules = json.loads((REPOSITORY / "deploy/aws/lifecycle.json").read_text())
    s3.put_bucket_lifecycle_configuration(Bucket="example", LifecycleConfiguration=rules)
    (rule,) = s3.get_bucket_lifecycle_configuration(Bucket="example")["Rules"]
    assert rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] > 0
    # The rule does not delete objects of the dataset.
    assert set(rule) == {"ID", "Status", "Filter", "AbortIncompleteMultipartUpload"}
