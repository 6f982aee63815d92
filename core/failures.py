"""The registry of failure kinds: every way in which a stage can fail for an object.

A kind is a stored string: the catalog keeps it for years, `lrm status` counts by it and `lrm retry`
selects by it. So a kind is never renamed. Its other properties are declared only here: the meaning,
the fault, when the stage is retried and what the operator should do. docs/reference/failures.md is
the same table.

This module imports only the standard library, because the Blender child and the GLB parser use it.
"""

from enum import StrEnum, auto

__all__ = ["FailureKind", "Fault", "Retry", "StageFailed", "kinds_with_retry"]


class Fault(StrEnum):
    """The location of the cause of a failure."""

    OBJECT = auto()
    """The object's file: only another file can pass."""
    SETTINGS = auto()
    """A limit of the build: the object may pass with a higher one."""
    INFRASTRUCTURE = auto()
    """The machine, the network or the storage: the failure says nothing about the object."""
    PROJECT = auto()
    """This software."""


class Retry(StrEnum):
    """When a failed stage is retried although the object's file did not change."""

    NEVER = auto()
    """Only after a change of the file, the stage's settings or its version, or `lrm retry`."""
    OTHER_LIMITS = auto()
    """By the next build whose limits of the Blender child differ from those at the failure."""
    NEXT_BUILD = auto()
    """By the next build."""
    AT_ONCE = auto()
    """By the same task, up to `execution.attempts` times with pauses; then by the next build."""


class FailureKind(StrEnum):
    """A failure kind; its value is the stored string."""

    meaning: str
    fault: Fault
    retry: Retry
    remedy: str

    def __new__(
        cls, name: str, meaning: str, fault: Fault, retry: Retry, remedy: str
    ) -> "FailureKind":
        """Create a member whose string value is `name`."""
        kind = str.__new__(cls, name)
        kind._value_ = name
        kind.meaning, kind.fault, kind.retry, kind.remedy = meaning, fault, retry, remedy
        return kind

    @classmethod
    def from_name(cls, name: str) -> "FailureKind":
        """Return the kind with this name. Raises ValueError if there is none."""
        for kind in cls:
            if kind.value == name:
                return kind
        raise ValueError(f"there is no failure kind {name!r}")

    # The source, and the transfer of the file.
    BAD_ANNOTATION = (
        "bad_annotation",
        "the source's annotation of the object, or its row of objects.csv, cannot be used: a value "
        "has the wrong type or is not valid Unicode",
        Fault.OBJECT,
        Retry.NEVER,
        "nothing; the annotation must be corrected at its source, and every build reads it again",
    )
    MISSING = (
        "missing",
        "the source lists the file but does not have it",
        Fault.OBJECT,
        Retry.NEVER,
        "nothing; once the source has the file again, run `lrm retry --kind missing`",
    )
    CHANGED = (
        "changed",
        "the file differs from the version that the source listed",
        Fault.OBJECT,
        Retry.NEVER,
        "run `lrm build` again: it lists and fetches the new version",
    )
    CORRUPT = (
        "corrupt",
        "every complete download had a wrong checksum",
        Fault.OBJECT,
        Retry.NEVER,
        "report it to the source; once it is fixed, run `lrm retry --kind corrupt`",
    )
    DOWNLOAD = (
        "download",
        "the download failed because of the network, the server or its rate limit",
        Fault.INFRASTRUCTURE,
        Retry.NEXT_BUILD,
        "run `lrm build` again; if it fails again, check the network, the token and the `--fetch` "
        "options",
    )
    # The content of the file.
    MALFORMED = (
        "malformed",
        "the file is not a valid GLB: its header, JSON, references, arrays or node tree are wrong",
        Fault.OBJECT,
        Retry.NEVER,
        "nothing; the object must be repaired at its source",
    )
    EXTERNAL_REFERENCE = (
        "external_reference",
        "the file refers to other files, which are never read",
        Fault.OBJECT,
        Retry.NEVER,
        "nothing; the object must be exported as a single file",
    )
    UNSUPPORTED_EXTENSION = (
        "unsupported_extension",
        "the file requires a glTF extension that is not supported, only such an extension names "
        "the image of a texture, or the image is in a KTX 2 format that cannot be decoded",
        Fault.OBJECT,
        Retry.NEVER,
        "if the message names a package, install it and run `lrm retry --kind "
        "unsupported_extension`; otherwise nothing: the object must be exported in another form",
    )
    EMPTY = (
        "empty",
        "the default scene has no visible triangle, or its surface has no extent",
        Fault.OBJECT,
        Retry.NEVER,
        "nothing",
    )
    TOO_LARGE = (
        "too_large",
        "the file exceeds a limit on bytes, nodes, triangles, vertices or texture pixels",
        Fault.SETTINGS,
        Retry.OTHER_LIMITS,
        "raise the inspection limit that the message names if the machines have enough memory",
    )
    REFUSED = (
        "refused",
        "the scene is invalid: coordinates are not finite or too far from the origin",
        Fault.OBJECT,
        Retry.NEVER,
        "nothing",
    )
    IMPORT_ERROR = (
        "import_error",
        "Blender's importer failed, or a texture cannot be decoded",
        Fault.OBJECT,
        Retry.NEVER,
        "read the log with `lrm inspect ASSET_ID`; report the object if other viewers show it",
    )
    # The work of Blender.
    TIMEOUT = (
        "timeout",
        "a step took longer than its limit, such as `--blender.import-seconds` for the "
        "inspection and the import",
        Fault.SETTINGS,
        Retry.OTHER_LIMITS,
        "raise the limit if such objects are worth the time",
    )
    OUT_OF_MEMORY = (
        "out_of_memory",
        "Blender, or the inspection, needed more memory than `--blender.memory-bytes`",
        Fault.SETTINGS,
        Retry.OTHER_LIMITS,
        "raise the limit if the machines have enough memory",
    )
    CRASH = (
        "crash",
        "Blender, or the inspection, crashed while it processed the object",
        Fault.OBJECT,
        Retry.NEVER,
        "read the log with `lrm inspect ASSET_ID`; after an update of bpy, run "
        "`lrm retry --kind crash`",
    )
    BAD_OUTPUT = (
        "bad_output",
        "the views are invalid, contradict each other, or are black where the object is not",
        Fault.OBJECT,
        Retry.NEVER,
        "nothing; report the object if it looks right in other viewers",
    )
    KILLED = (
        "killed",
        "another process killed Blender or the inspection: usually the kernel, because memory ran "
        "out, or a user",
        Fault.INFRASTRUCTURE,
        Retry.AT_ONCE,
        "run `lrm build` again; if it happens often, run fewer tasks per node: raise "
        "`--execution.render-memory`",
    )
    NO_SPACE = (
        "no_space",
        "the scratch disk is full",
        Fault.INFRASTRUCTURE,
        Retry.AT_ONCE,
        "free space on the disk of TMPDIR, or set TMPDIR to a folder on a larger disk; then run "
        "`lrm build` again",
    )
    NO_DEVICE = (
        "no_device",
        "a GPU was requested but Cycles finds none",
        Fault.INFRASTRUCTURE,
        Retry.AT_ONCE,
        "run `lrm doctor` on the node, check its GPU driver, then run `lrm build` again",
    )
    NO_START = (
        "no_start",
        "Blender, or the process of the inspection, does not start on this machine",
        Fault.INFRASTRUCTURE,
        Retry.AT_ONCE,
        "run `lrm doctor` on the node, which names what is missing, then `lrm build` again",
    )
    # The dataset's storage, the workers, and this software.
    STORAGE = (
        "storage",
        "the dataset's storage or a local disk failed",
        Fault.INFRASTRUCTURE,
        Retry.AT_ONCE,
        "check the storage: its free space, network and credentials; then run `lrm build` again",
    )
    STAGING_LOST = (
        "staging_lost",
        "a rendered sample disappeared from `staging/` before it was packed",
        Fault.INFRASTRUCTURE,
        Retry.NEXT_BUILD,
        "run `lrm build` again: it renders the object again; make sure that nothing else deletes "
        "files there",
    )
    SAMPLE_DAMAGED = (
        "sample_damaged",
        "`lrm verify` found that the stored bytes of a sample or companion file are damaged",
        Fault.INFRASTRUCTURE,
        Retry.NEXT_BUILD,
        "run `lrm build` again: it restores them; check the disk or bucket",
    )
    WORKER_LOST = (
        "worker_lost",
        "the workers that processed the object were lost `execution.attempts` times",
        Fault.INFRASTRUCTURE,
        Retry.NEXT_BUILD,
        "run `lrm build` again; check Ray's logs for nodes that run out of memory",
    )
    INTERNAL_ERROR = (
        "internal_error",
        "an unexpected error in this software; the traceback is in the log",
        Fault.PROJECT,
        Retry.NEVER,
        "report it with the output of `lrm inspect ASSET_ID`",
    )


def kinds_with_retry(*retry: Retry) -> frozenset[FailureKind]:
    """Return the kinds whose retry rule is one of those given."""
    return frozenset(kind for kind in FailureKind if kind.retry in retry)


class StageFailed(Exception):
    """The failure of a stage for an object; `log_tail` is the end of a log, if there is one."""

    def __init__(self, kind: FailureKind, message: str, log_tail: str | None = None) -> None:
        super().__init__(kind, message, log_tail)
        self.kind = kind
        self.message = message
        self.log_tail = log_tail

    def __str__(self) -> str:
        return self.message
