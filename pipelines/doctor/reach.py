"""Checks of remote services and storage, only on request: Objaverse's hub, a dataset's root."""

import os
import shlex

from core.errors import BadInput, LrmError
from core.storage import Storage, storage_errors
from dataset.root import FORMAT_VERSION, check_root
from pipelines.doctor.finding import Finding

__all__ = ["check_objaverse", "check_root_uri"]

_S3 = ("s3://", "s3a://")


def check_objaverse() -> Finding:
    """Resolve the newest commit on the hub, and read the first bytes of one of its files."""
    from huggingface_hub.constants import ENDPOINT

    problem, commit = "", ""
    try:
        commit = _read_from_hub(ENDPOINT)
    except LrmError as error:
        problem = str(error)
    return Finding(
        what="Objaverse",
        state="missing" if problem else "ok",
        found=problem or f"{ENDPOINT}: main is commit {commit}, and its files can be read",
        needed_for="--source objaverse (not for a mirror: --source DIR)",
        remedy="export HF_ENDPOINT=URL  # or HTTPS_PROXY=URL" if problem else "",
    )


def _read_from_hub(endpoint: str) -> str:
    """Return the newest commit. Raises BadInput if it or its files cannot be read."""
    import huggingface_hub

    from pipelines.sources.hub import REPOSITORY, HuggingFaceObjaverse
    from pipelines.sources.objaverse import OBJECT_PATHS
    from pipelines.transfers.fetch_config import FetchConfig
    from pipelines.transfers.outcome import FetchFailed
    from pipelines.transfers.small_request import request

    config = FetchConfig()
    commit = HuggingFaceObjaverse.resolve("main", config).revision
    url = huggingface_hub.hf_hub_url(
        REPOSITORY, OBJECT_PATHS, repo_type="dataset", revision=commit, endpoint=endpoint
    )
    try:
        answer = request(url, OBJECT_PATHS, config, attempts=1, first_bytes=1024)
    except FetchFailed as error:
        raise BadInput(f"cannot read {OBJECT_PATHS}: {error}") from None
    if answer.status != 200:
        raise BadInput(f"cannot read {OBJECT_PATHS}: {url}: HTTP {answer.status}")
    return commit


def check_root_uri(uri: str) -> list[Finding]:
    """Read the root as every command does; in S3, also find the credentials."""
    findings = [_credentials()] if uri.startswith(_S3) else []
    return [*findings, _read_root(uri)]


def _credentials() -> Finding:
    """Find credentials as botocore does: in variables, profiles, or the machine's role."""
    import botocore.exceptions
    import botocore.session

    problem, method = "", ""
    try:
        credentials = botocore.session.Session().get_credentials()
        if credentials is None:
            problem = "none: AWS_ACCESS_KEY_ID is not set, and there is no profile or machine role"
        else:
            credentials.get_frozen_credentials()
            method = str(credentials.method)
    except botocore.exceptions.BotoCoreError as error:
        problem = str(error)
    profile = os.environ.get("AWS_PROFILE")
    command = f"aws configure --profile {shlex.quote(profile)}" if profile else "aws configure"
    return Finding(
        what="S3 credentials",
        state="missing" if problem else "ok",
        found=problem or f"found by the method {method}",
        needed_for="s3://... as root or source",
        remedy=f"{command}  # or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        if problem
        else "",
    )


def _read_root(uri: str) -> Finding:
    problem, description = "", ""
    try:
        description = _describe_root(Storage(uri))
    except LrmError as error:
        problem = str(error)
    except storage_errors() as error:
        lines = str(error).strip().splitlines()
        problem = f"{uri}: {lines[0] if lines else type(error).__name__}"
    remedy = "mkdir FOLDER  # then use --root FOLDER"
    if uri.startswith(_S3):
        remedy = (
            f"aws s3 ls {shlex.quote(uri)}  # must succeed: check AWS_ENDPOINT_URL, region, policy"
        )
    return Finding(
        what="root",
        state="missing" if problem else "ok",
        found=problem or f"{uri}: {description}",
        needed_for="every command with --root",
        remedy=remedy if problem else "",
    )


def _describe_root(root: Storage) -> str:
    """Return whether the root is a dataset or empty. Raises LrmError if it is neither."""
    if check_root(root):
        return f"a dataset of format {FORMAT_VERSION}"
    if root.uri.startswith(_S3):
        # In S3, an empty folder and a bucket that does not exist both list nothing.
        scheme, _, rest = root.uri.partition("://")
        bucket = rest.partition("/")[0]
        if not Storage(f"{scheme}://{bucket}").exists(""):
            raise BadInput(f"{root.uri}: the bucket {bucket} does not exist")
    return "empty: a build can create a dataset here"
