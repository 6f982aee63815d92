"""What lies elsewhere, looked at only if it is asked for: the hub of Objaverse, a dataset."""

import os
import shlex

from core.errors import BadInput, LrmError
from core.storage import Storage, storage_errors
from dataset.root import FORMAT_VERSION, check_root
from pipelines.doctor.finding import Finding

__all__ = ["check_objaverse", "check_root_uri"]

_S3 = ("s3://", "s3a://")


def check_objaverse() -> Finding:
    """Ask the hub for the newest commit, then a file's first bytes of wherever it lies."""
    from huggingface_hub.constants import ENDPOINT

    problem, commit = "", ""
    try:
        commit = _ask_hub(ENDPOINT)
    except LrmError as error:
        problem = str(error)
    except OSError as error:
        problem = f"{ENDPOINT}: {error}"
    return Finding(
        what="Objaverse",
        state="missing" if problem else "ok",
        found=problem or f"{ENDPOINT} answers; main is {commit}, and files can be read",
        needed_for="--source objaverse; a mirror (--source DIR) does without",
        remedy="export HF_ENDPOINT=URL  # or HTTPS_PROXY=URL" if problem else "",
    )


def _ask_hub(endpoint: str) -> str:
    import httpx2
    import huggingface_hub

    from pipelines.sources.hub import REPOSITORY, HuggingFaceObjaverse
    from pipelines.sources.objaverse import OBJECT_PATHS
    from pipelines.transfers.fetch_config import FetchConfig

    config = FetchConfig()
    commit = HuggingFaceObjaverse.resolve("main", config).revision
    url = huggingface_hub.hf_hub_url(
        REPOSITORY, OBJECT_PATHS, repo_type="dataset", revision=commit, endpoint=endpoint
    )
    try:
        with httpx2.stream(
            "GET",
            url,
            follow_redirects=True,
            timeout=config.connect_seconds,
        ) as answer:
            answer.raise_for_status()
            next(answer.iter_raw(1024), b"")
    except httpx2.HTTPError as error:
        raise OSError(f"{OBJECT_PATHS} cannot be read: {error}") from None
    return commit


def check_root_uri(uri: str) -> list[Finding]:
    """Read the root as every command does; of S3, also where the credentials come from."""
    findings = [_credentials()] if uri.startswith(_S3) else []
    return [*findings, _read_root(uri)]


def _credentials() -> Finding:
    """The chain of botocore: variables, profiles, a role of the machine."""
    import botocore.exceptions
    import botocore.session

    problem, method = "", ""
    try:
        found = botocore.session.Session().get_credentials()
        if found is None:
            problem = "none in AWS_ACCESS_KEY_ID, in a profile, or of a role of this machine"
        else:
            found.get_frozen_credentials()
            method = str(found.method)
    except botocore.exceptions.BotoCoreError as error:
        problem = str(error)
    profile = os.environ.get("AWS_PROFILE")
    line = f"aws configure --profile {shlex.quote(profile)}" if profile else "aws configure"
    return Finding(
        what="S3 credentials",
        state="missing" if problem else "ok",
        found=problem or f"by {method}",
        needed_for="s3://... as root or source",
        remedy=f"{line}  # or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" if problem else "",
    )


def _read_root(uri: str) -> Finding:
    problem, found = "", ""
    try:
        found = _describe_root(Storage(uri))
    except LrmError as error:
        problem = str(error)
    except storage_errors() as error:
        lines = str(error).strip().splitlines()
        problem = f"{uri}: {lines[0] if lines else type(error).__name__}"
    remedy = "mkdir FOLDER  # and name that as --root"
    if uri.startswith(_S3):
        remedy = f"aws s3 ls {shlex.quote(uri)}  # AWS_ENDPOINT_URL, region, policy"
    return Finding(
        what="root",
        state="missing" if problem else "ok",
        found=problem or f"{uri}: {found}",
        needed_for="every command with --root",
        remedy=remedy if problem else "",
    )


def _describe_root(root: Storage) -> str:
    if check_root(root):
        return f"a dataset of format {FORMAT_VERSION}"
    if root.uri.startswith(_S3):
        # Nothing below a name looks the same in a bucket as in none.
        scheme, _, rest = root.uri.partition("://")
        bucket = rest.partition("/")[0]
        if not Storage(f"{scheme}://{bucket}").exists(""):
            raise BadInput(f"{root.uri}: there is no bucket {bucket}")
    return "empty: a build makes a dataset of it"
