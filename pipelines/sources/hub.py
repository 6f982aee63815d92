"""A source that reads Objaverse 1.0 from the Hugging Face hub, at one commit."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from core.errors import BadInput, first_line
from glb.container import glb_problem
from pipelines.sources.json_tables import MAX_BYTES
from pipelines.sources.objaverse import ObjaverseSource
from pipelines.sources.stored_files import require_size
from pipelines.transfers.budget import RequestBudget
from pipelines.transfers.cluster_budget import open_budget
from pipelines.transfers.download import download
from pipelines.transfers.fetch_config import REQUESTS, FetchConfig
from pipelines.transfers.outcome import FetchedFile

__all__ = ["REPOSITORY", "HuggingFaceObjaverse"]

REPOSITORY = "allenai/objaverse"
_REQUESTS_WITH_TOKEN = 5000
"""Requests per window with a token."""


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
        self._trees: dict[str, dict[str, str]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.revision, self._endpoint, self._token, self._config)

    @classmethod
    def resolve(cls, revision: str, config: FetchConfig) -> "HuggingFaceObjaverse":
        """Return the source at the commit of a branch, tag or commit hash. Raises BadInput."""
        import huggingface_hub
        from huggingface_hub.constants import ENDPOINT

        try:
            info = huggingface_hub.HfApi().dataset_info(REPOSITORY, revision=revision)
        except (huggingface_hub.errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]
            raise BadInput(
                f"objaverse@{revision}: cannot look up {REPOSITORY} on the hub: "
                f"{first_line(error)} (set HF_ENDPOINT for another hub, or use a mirror with "
                "--source DIR)"
            ) from None
        return cls(str(info.sha), ENDPOINT, huggingface_hub.get_token(), config)

    def read(self, path: str) -> bytes:
        """Return an annotation file, from the local cache if it is there. Raises FetchFailed."""
        cached = self._cached(path)
        if not cached.exists():
            cached.parent.mkdir(parents=True, exist_ok=True)
            self._download(path, cached, lambda _: "", None)
        require_size(str(cached), cached.stat().st_size, MAX_BYTES)
        return cached.read_bytes()

    def remedy(self, path: str) -> str:
        """Return what to do if an annotation file is damaged."""
        return f"delete {self._cached(path)}, and the next build downloads it again"

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

    def fetch(self, path: str, version: str, target: Path) -> FetchedFile:
        """Download a file of the commit, or copy it from the cache. Raises FetchFailed."""
        import objaverse

        cached = Path(objaverse._VERSIONED_PATH) / path
        return self._download(path, target, glb_problem, cached if cached.is_file() else None)

    def _download(
        self, path: str, target: Path, check: Callable[[Path], str], local: Path | None
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
        return download(url, target, check, self._config, self._budget, self._token, local)

    def _tree(self, folder: str) -> dict[str, str]:
        """Return the Git object ids of a folder's entries by name; empty if there are no trees.

        A mirror of the hub may lack the tree endpoint. Raises BadInput if the hub cannot be read.
        """
        import huggingface_hub
        import huggingface_hub.utils

        url = f"{self._endpoint}/api/datasets/{REPOSITORY}/tree/{self.revision}/{folder}"
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            request = huggingface_hub.utils.http_backoff  # type: ignore[attr-defined]
            response = request("GET", url, headers=headers)
            if response.status_code in (400, 404):
                return {}
            response.raise_for_status()
            entries = response.json()
        except (huggingface_hub.errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]
            text = f"cannot list the folder {folder} on the hub: {first_line(error)}"
            raise BadInput(f"{self.name}: {text}") from None
        except (ValueError, RecursionError):
            return {}
        if not isinstance(entries, list):
            return {}
        pairs = (
            (entry.get("path"), entry.get("oid")) for entry in entries if isinstance(entry, dict)
        )
        # An entry of another form is left out: its version is then the commit.
        return {
            Path(path).name: oid
            for path, oid in pairs
            if isinstance(path, str) and isinstance(oid, str) and oid.isascii()
        }
