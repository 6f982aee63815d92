"""What servers announce about a file before they send it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from pipelines.transfers.headers import entity_tag, whole_number

__all__ = ["AnnouncedContent"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class AnnouncedContent:
    """A file's ETag, SHA-256 and size, as the servers announce them before the bytes."""

    etag: str | None = None
    sha256: str | None = None
    size: int | None = None
    is_local: bool = False
    """Whether a local file has this content, so that no bytes are requested."""

    def with_headers(self, headers: Mapping[str, str], *, from_origin: bool) -> "AnnouncedContent":
        """Return a copy with the values of one more response; values that are set stay.

        A plain ETag is used only if it comes from the first server and is a SHA-256: other servers
        send ETags of their own storage.
        """
        plain = entity_tag(headers)
        plain = plain if from_origin and plain and _SHA256.fullmatch(plain) else None
        etag = entity_tag(headers, "x-linked-etag") or plain
        sha256 = etag if etag and _SHA256.fullmatch(etag) else None
        size = whole_number(headers.get("x-linked-size", "")) if self.size is None else self.size
        return replace(self, etag=self.etag or etag, sha256=self.sha256 or sha256, size=size)
