"""The address of the catalog for Delta Lake, which parses it as a URL."""

import os
import re
from urllib.parse import quote

from core.errors import BadInput
from core.storage import Storage

__all__ = ["delta_options", "table_uri"]

_ENCODED = "%[0-9A-Fa-f]{2}"
"""Delta Lake's reader decodes this once more than its writer, and so reads another folder."""
_LOCAL = re.compile(rf"[\[\]|^\\]|{_ENCODED}")
"""In local paths Delta Lake does not encode the other characters, and panics or misreads them."""
_RETRY_TIMEOUT = "20s"
"""The client repeats a failed request for this time, by default 180 s; then the catalog waits, logs
and opens the table again. A request ends after 30 s: a silent store fails after 11 minutes."""
_REMOTE = re.compile(rf"(?:^|(?<=/))\.{{0,2}}(?=/)|{_ENCODED}")
"""Object stores also allow the names ``, `.` and `..`, which a URL removes."""


def table_uri(root: Storage) -> str:
    """Return the address of the catalog of a dataset with this root.

    Raises BadInput if Delta Lake would use another folder than the root, or fail.
    """
    if root.is_local:
        # It resolves links, so the name of a link's target counts.
        path = os.path.realpath(root.uri)
        address, unusable = root.uri, _LOCAL.search(path)
    else:
        scheme, _, rest = root.uri.partition("://")
        bucket, _, path = rest.partition("/")
        unusable = _REMOTE.search(f"{path}/") if path else None
        address = "/".join(filter(None, (f"{scheme}://{bucket}", quote(path))))
    if unusable:
        part = unusable[0]
        found = f"contains {part!r}" if part else "has an empty part (//)"
        raise BadInput(
            f"{root.uri}: the path of the dataset {found}, which Delta Lake, the library of the "
            "catalog, misreads; give a folder without it"
        )
    return f"{address}/catalog"


def delta_options(root: Storage) -> dict[str, str]:
    """Return options of Delta Lake's client of the store that it does not read by itself."""
    if root.is_local:
        return {}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    # A self-hosted store in a private network may be configured without TLS.
    without_tls = {"AWS_ALLOW_HTTP": "true"} if endpoint.startswith("http://") else {}
    return {**without_tls, "retry_timeout": _RETRY_TIMEOUT}
