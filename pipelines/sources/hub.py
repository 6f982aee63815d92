"""A source that reads Objaverse 1.0 from the Hugging Face hub, at one commit."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from core.errors import BadInput
from core.failures import FailureKind
from core.remote.waiting import server_of, waiting_for
from glb.container import glb_problem
from glb.limits import GlbLimits
from pipelines.sources.cached_tables import read_cached_table, record_digest, table_problem
from pipelines.sources.json_tables import MAX_BYTES
from pipelines.sources.objaverse import ObjaverseSource
from pipelines.transfers.budget import RequestBudget
from pipelines.transfers.cluster_budget import open_budget
from pipelines.transfers.download import download
from pipelines.transfers.fetch_config import REQUESTS, FetchConfig
from pipelines.transfers.hub_api import find_commit, hub_token, list_folder
from pipelines.transfers.outcome import FetchedFile, FetchFailed
from pipelines.transfers.size_limit import SizeLimit, glb_limit

__all__ = ["REPOSITORY", "HuggingFaceObjaverse"]

REPOSITORY = "allenai/objaverse"
_REQUESTS_WITH_TOKEN = 5000
"""Requests per window with a token."""

_REMEDY = "(set HF_ENDPOINT for another hub, or use a mirror with --source DIR)"


class HuggingFaceObjaverse(ObjaverseSource):
    """Objaverse at one commit of the hub.

    The process that resolves the revision reads HF_ENDPOINT, HF_TOKEN and the token file once; all
    workers use these values. Annotations are cached in the cache folder of the `objaverse` package.
    GLB files that this package has downloaded are copied from that folder if their SHA-256 is the
    one that the hub announces.
    """

    def __init__(self, commit: str, endpoint: str, token: str | None, config: FetchConfig) -> None:
        super().__init__(f"objaverse@{commit}")
        self.revision = commit
        self._endpoint = endpoint
        self._token = token
        self._config = config
        self._budget: RequestBudget | None = None
        self._trees: dict[str, Mapping[str, str]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.revision, self._endpoint, self._token, self._config)

    @classmethod
    def resolve(cls, revision: str, config: FetchConfig) -> "HuggingFaceObjaverse":
        """Return the source at the commit of a branch, tag or commit hash. Raises BadInput."""
        from huggingface_hub.constants import ENDPOINT

        token = hub_token(ENDPOINT)
        try:
            commit = find_commit(ENDPOINT, REPOSITORY, revision, token, config)
        except FetchFailed as error:
            name = f"objaverse@{revision}: cannot look up {REPOSITORY} on the hub"
            raise BadInput(f"{name}: {error} {_REMEDY}") from None
        return cls(commit, ENDPOINT, token, config)

    def read(self, path: str) -> bytes:
        """Return an annotation file, from the local cache if it has it undamaged.

        Only a readable table is kept there. Raises FetchFailed.
        """
        cached = self._cached(path)
        data = read_cached_table(cached)
        if data is not None:
            return data
        limit = SizeLimit(name=path, max_bytes=MAX_BYTES)
        try:
            with waiting_for(server_of(self._endpoint), f"download of {path}"):
                fetched = self._download(path, cached, table_problem, None, limit)
        except FetchFailed as error:
            remedy = (
                f"(the cache is {cached.parent})" if error.kind is FailureKind.STORAGE else _REMEDY
            )
            raise FetchFailed(error.kind, f"{error} {remedy}") from None
        record_digest(cached, fetched.sha256)
        return cached.read_bytes()

    def remedy(self, path: str) -> str:
        """Return what to do if an annotation file is damaged."""
        return f"the file is {self._cached(path)}; delete it to download it again"

    def _cached(self, path: str) -> Path:
        """Return the local path of an annotation file."""
        import objaverse

        return Path(objaverse._VERSIONED_PATH) / self.revision / path

    def annotation_versions(self) -> Mapping[str, str]:
        """Return the Git object ids of the annotation files; the commit if the hub has no trees."""
        if "metadata" not in self._trees:
            self._trees["metadata"] = self._tree("metadata")
        names = (f"{folder}.json.gz" for folder in self._read_index().folders)
        return {name: self._trees["metadata"].get(name, self.revision) for name in names}

    def glb_versions(self, folder: str) -> str:
        """Return the Git object id of the folder, which changes when any of its files does."""
        if "glbs" not in self._trees:
            self._trees["glbs"] = self._tree("glbs")
        return self._trees["glbs"].get(folder, self.revision)

    def fetch(
        self, path: str, version: str, target: Path, max_bytes: int = GlbLimits.max_file_bytes
    ) -> FetchedFile:
        """Download a file of the commit, or copy it from the cache. Raises FetchFailed."""
        import objaverse

        cached = Path(objaverse._VERSIONED_PATH) / path
        local = cached if cached.is_file() else None
        return self._download(path, target, glb_problem, local, glb_limit(path, max_bytes))

    def _download(
        self,
        path: str,
        target: Path,
        check: Callable[[Path], str],
        local: Path | None,
        limit: SizeLimit,
    ) -> FetchedFile:
        import huggingface_hub

        url = huggingface_hub.hf_hub_url(
            REPOSITORY,
            path,
            repo_type="dataset",
            revision=self.revision,
            endpoint=self._endpoint,
        )
        if self._budget is None:
            default = _REQUESTS_WITH_TOKEN if self._token else REQUESTS
            requests = self._config.requests or default
            self._budget = open_budget(self._endpoint, requests, self._config.window_seconds)
        return download(url, target, check, self._config, self._budget, self._token, local, limit)

    def _tree(self, folder: str) -> Mapping[str, str]:
        """Return the Git object ids of a folder's entries by name; empty if there are no trees.

        A mirror of the hub may lack the tree endpoint. Raises BadInput if the hub cannot be read.
        """
        try:
            return list_folder(
                self._endpoint, REPOSITORY, self.revision, folder, self._token, self._config
            )
        except FetchFailed as error:
            text = f"cannot list the folder {folder} on the hub: {error} {_REMEDY}"
            raise BadInput(f"{self.name}: {text}") from None
