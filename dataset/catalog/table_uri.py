"""The address of the catalog for Delta Lake, which parses it as a URL."""

import os
import re
from urllib.parse import quote

from core.errors import BadInput
from core.storage import Storage

__all__ = ["table_uri"]

_ENCODED = "%[0-9A-Fa-f]{2}"
"""Delta Lake's reader decodes this once more than its writer, and so reads another folder."""
_LOCAL = re.compile(rf"[\[\]|^\\]|{_ENCODED}")
"""In local paths Delta Lake does not encode the other characters, and panics or misreads them."""
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
