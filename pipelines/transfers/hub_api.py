"""The API of the Hugging Face hub: the commit of a revision, and the files of a folder."""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urljoin

from core.errors import BadInput
from core.failures import FailureKind
from core.remote.waiting import server_of, waiting_for
from pipelines.transfers.fetch_config import FetchConfig
from pipelines.transfers.outcome import FetchFailed
from pipelines.transfers.small_request import Answer, read_json, request

__all__ = ["find_commit", "hub_token", "list_folder"]

_MAX_PAGES = 1000
"""Pages of a folder; the hub lists 1,000 files on each."""
_FIRST_ATTEMPTS = 3
"""Attempts of the first request: if the hub cannot be reached at all, the user waits for that."""
_COMMIT = re.compile("[0-9a-f]{40}")
_NO_TREES = frozenset({400, 404})
"""Statuses of a mirror of the hub that cannot list folders."""
_MAX_TOKEN = 1000
"""Maximum length of a token in characters; the hub's have 37."""


def hub_token(endpoint: str) -> str | None:
    """Return the token in HF_TOKEN or in the token file, if there is one. Raises BadInput."""
    import huggingface_hub
    from huggingface_hub.constants import HF_TOKEN_PATH

    problem = "it is not one line of text"
    try:
        with waiting_for(server_of(endpoint), "the access token"):
            token = huggingface_hub.get_token()
        if token is None or (len(token) <= _MAX_TOKEN and token.isascii() and token.isprintable()):
            return token
    except (OSError, ValueError, huggingface_hub.errors.HTTPError) as error:  # type: ignore[attr-defined]
        problem = str(error).split("\n", 1)[0]
    raise BadInput(
        f"the token of the hub cannot be used: {problem}; set HF_TOKEN, or delete {HF_TOKEN_PATH}"
    )


def find_commit(
    endpoint: str, repository: str, revision: str, token: str | None, config: FetchConfig
) -> str:
    """Return the commit of a branch, tag or commit hash. Raises FetchFailed (download)."""
    url = f"{endpoint}/api/datasets/{repository}/revision/{quote(revision, safe='')}"
    attempts = min(config.attempts, _FIRST_ATTEMPTS)
    answer = request(url, f"the commit of {revision}", config, token, attempts=attempts)
    value = read_json(answer)
    sha = value.get("sha") if isinstance(value, dict) else None
    if not isinstance(sha, str) or not _COMMIT.fullmatch(sha):
        raise _unexpected(answer, "names no commit (`sha`)")
    return sha


def list_folder(
    endpoint: str, repository: str, commit: str, folder: str, token: str | None, config: FetchConfig
) -> Mapping[str, str]:
    """Return the Git object ids of a folder's entries by name; empty if the hub has no trees.

    An entry of another form is left out. Raises FetchFailed (download).
    """
    url: str | None = f"{endpoint}/api/datasets/{repository}/tree/{commit}/{folder}"
    ids: dict[str, str] = {}
    for page in range(_MAX_PAGES):
        assert url is not None
        answer = request(url, f"the list of {folder}/, page {page + 1}", config, token)
        if page == 0 and answer.status in _NO_TREES:
            return {}
        entries = read_json(answer)
        if not isinstance(entries, list):
            raise _unexpected(answer, "is not a list of files")
        ids |= dict(filter(None, map(_name_and_id, entries)))
        url = _next_page(answer, endpoint)
        if url is None:
            return ids
    raise _unexpected(answer, f"is page {_MAX_PAGES} and names a next one")


def _name_and_id(entry: Any) -> tuple[str, str] | None:
    """Return the name and the object id of an entry; None if it has another form."""
    path, oid = (entry.get("path"), entry.get("oid")) if isinstance(entry, dict) else (None, None)
    if isinstance(path, str) and isinstance(oid, str) and oid.isascii():
        return path.rpartition("/")[2], oid
    return None


def _next_page(answer: Answer, endpoint: str) -> str | None:
    """Return the URL of the next page. Raises FetchFailed if another server has it."""
    if answer.next_url is None:
        return None
    url = urljoin(answer.url, answer.next_url)
    # The token is sent to the server of every page.
    if server_of(url) != server_of(endpoint):
        raise _unexpected(answer, f"continues on another server ({server_of(url)[:100]})")
    return url


def _unexpected(answer: Answer, problem: str) -> FetchFailed:
    return FetchFailed(FailureKind.DOWNLOAD, f"{answer.url}: the answer {problem}")
