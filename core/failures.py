"""Every way in which a stage fails for an object: the registry of failure kinds.

A kind is a stored string: the catalog keeps it for years, `lrm status` counts by it and `lrm retry`
selects by it. So a kind is never renamed. Everything else about it is stated here once: what it
means, whose fault it is, when the stage is tried again and what the operator does.
docs/reference/failures.md is the same table for readers.

Standard library only: the Blender child and the GLB parser name their failures from here, too.
"""

from enum import StrEnum, auto

__all__ = ["FailureKind", "Fault", "Retry", "StageFailed", "kinds_retried"]


class Fault(StrEnum):
    """Where the cause of a failure lies."""

    OBJECT = auto()
    """In the object's file: another file is needed."""
    SETTINGS = auto()
    """In a limit of the build: a higher one may let the object pass."""
    INFRASTRUCTURE = auto()
    """In the machine, the network or the storage: the failure says nothing about the object."""
    PROJECT = auto()
    """In this software."""


class Retry(StrEnum):
    """When a failed stage is tried again without a change to the object's file."""

    NEVER = auto()
    """Only after the file, the stage's settings or its version changes, or after `lrm retry`."""
    OTHER_LIMITS = auto()
    """By the next build whose limits of the Blender child differ from those of the failure."""
    NEXT_BUILD = auto()
    """By the next build."""
    AT_ONCE = auto()
    """By the same task, `execution.attempts` times with pauses; then by the next build."""


class FailureKind(StrEnum):
    """A failure kind; its value is the stored string."""

    meaning: str
    fault: Fault
    retry: Retry
    remedy: str

    def __new__(
        cls, name: str, meaning: str, fault: Fault, retry: Retry, remedy: str
    ) -> "FailureKind":
        """Make a member whose string is `name`."""
        kind = str.__new__(cls, name)
        kind._value_ = name
        kind.meaning, kind.fault, kind.retry, kind.remedy = meaning, fault, retry, remedy
        return kind

    @classmethod
    def named(cls, name: str) -> "FailureKind":
        """Return the kind of that name. Raises ValueError if there is none."""
        for kind in cls:
            if kind.value == name:
                return kind
        raise ValueError(f"there is no failure kind {name!r}")

    # The source, and the transfer of the file.
    MISSING = (
        "missing",
        "the source lists the file and does not have it",
        Fault.OBJECT,
        Retry.NEVER,
        "nothing; if the source has it again, `lrm retry --kind missing`",
    )
    CHANGED = (
        "changed",
        "the file is not the one that the source listed",
        Fault.OBJECT,
        Retry.NEVER,
        "run `lrm build` again: it lists the new version and fetches it",
    )
    CORRUPT = (
        "corrupt",
        "every complete answer of the server held bytes with a wrong checksum",
        Fault.OBJECT,
        Retry.NEVER,
        "tell the source; after it is mended, `lrm retry --kind corrupt`",
    )
    DOWNLOAD = (
        "download",
        "the file could not be transferred: the network, the server or its limit of requests",
        Fault.INFRASTRUCTURE,
        Retry.NEXT_BUILD,
        "run `lrm build` again; check the network, the token and `--fetch` if it stays",
    )
    # What the file holds.
    MALFORMED = (
        "malformed",
        "the file is no valid GLB: header, JSON, references, arrays or node tree",
        Fault.OBJECT,
        Retry.NEVER,
        "nothing; the object has to be mended at its source",
    )
    EXTERNAL_REFERENCE = (
        "external_reference",
        "the file refers to other files, which are never followed",
        Fault.OBJECT,
        Retry.NEVER,
        "nothing; the object has to be exported as one file",
    )
    UNSUPPORTED_EXTENSION = (
        "unsupported_extension",
        "the file requires a glTF extension that Blender's importer lacks, or has a texture's "
        "image only by one",
        Fault.OBJECT,
        Retry.NEVER,
        "nothing; the object has to be exported without the extension",
    )
    EMPTY = (
        "empty",
        "the default scene draws no triangle, or its surface has no extent",
        Fault.OBJECT,
        Retry.NEVER,
        "nothing",
    )
    TOO_LARGE = (
        "too_large",
        "the file exceeds a limit: bytes, nodes, triangles, vertices or texture pixels",
        Fault.SETTINGS,
        Retry.OTHER_LIMITS,
        "raise the limit of the inspection that the message names if the machines have the memory",
    )
    REFUSED = (
        "refused",
        "the scene cannot be drawn faithfully: coordinates that are not finite or too far away",
        Fault.OBJECT,
        Retry.NEVER,
        "nothing",
    )
    IMPORT_ERROR = (
        "import_error",
        "Blender's importer gave up, or a texture cannot be decoded",
        Fault.OBJECT,
        Retry.NEVER,
        "read the log with `lrm inspect ASSET_ID`; report it if other viewers show the object",
    )
    # What happens in Blender.
    TIMEOUT = (
        "timeout",
        "a step took longer than its limit: `--blender.import-seconds` and its like",
        Fault.SETTINGS,
        Retry.OTHER_LIMITS,
        "raise the limit if such objects are worth the time",
    )
    OUT_OF_MEMORY = (
        "out_of_memory",
        "Blender needed more memory than `--blender.memory-bytes`",
        Fault.SETTINGS,
        Retry.OTHER_LIMITS,
        "raise the limit if the machines have the memory",
    )
    CRASH = (
        "crash",
        "Blender ended by itself while it worked on the object",
        Fault.OBJECT,
        Retry.NEVER,
        "read the log with `lrm inspect ASSET_ID`; `lrm retry --kind crash` after an update of bpy",
    )
    BAD_OUTPUT = (
        "bad_output",
        "the rendered views are invalid or contradict each other",
        Fault.OBJECT,
        Retry.NEVER,
        "nothing; report the object if its views look right elsewhere",
    )
    KILLED = (
        "killed",
        "Blender was killed from outside: by the kernel for want of memory, or by a person",
        Fault.INFRASTRUCTURE,
        Retry.AT_ONCE,
        "give a node fewer tasks (`--execution.render-memory`) if it happens often",
    )
    NO_SPACE = (
        "no_space",
        "the scratch disk is full",
        Fault.INFRASTRUCTURE,
        Retry.AT_ONCE,
        "free the disk under TMPDIR, or name a larger one there",
    )
    NO_DEVICE = (
        "no_device",
        "a GPU was asked for and Cycles finds none",
        Fault.INFRASTRUCTURE,
        Retry.AT_ONCE,
        "run `lrm doctor` on the node; check its driver",
    )
    NO_START = (
        "no_start",
        "Blender does not start on this machine",
        Fault.INFRASTRUCTURE,
        Retry.AT_ONCE,
        "run `lrm doctor` on the node; it names the library that is missing",
    )
    # The dataset's storage, and the work on it.
    STORAGE = (
        "storage",
        "the dataset's storage, or a disk on the way, failed",
        Fault.INFRASTRUCTURE,
        Retry.AT_ONCE,
        "check the storage and its credentials, then run `lrm build` again",
    )
    STAGING_LOST = (
        "staging_lost",
        "a rendered sample was gone from `staging/` before it was packed",
        Fault.INFRASTRUCTURE,
        Retry.NEXT_BUILD,
        "run `lrm build` again: it renders the object again; let nothing else delete files there",
    )
    SAMPLE_DAMAGED = (
        "sample_damaged",
        "`lrm verify` found that the stored bytes of a sample or companion file are damaged",
        Fault.INFRASTRUCTURE,
        Retry.NEXT_BUILD,
        "run `lrm build` again: it makes them anew; check the disk or bucket",
    )
    WORKER_LOST = (
        "worker_lost",
        "the workers that had the object were lost, `execution.attempts` times",
        Fault.INFRASTRUCTURE,
        Retry.NEXT_BUILD,
        "run `lrm build` again; look at Ray's logs for nodes that run out of memory",
    )
    INTERNAL_ERROR = (
        "internal_error",
        "an error in this software that nobody foresaw; the traceback is in the log",
        Fault.PROJECT,
        Retry.NEVER,
        "report it with the output of `lrm inspect ASSET_ID`",
    )


def kinds_retried(*retry: Retry) -> frozenset[FailureKind]:
    """Return the kinds that are tried again in one of these ways."""
    return frozenset(kind for kind in FailureKind if kind.retry in retry)


class StageFailed(Exception):
    """A stage failed for an object; `log_tail` holds the end of a log, if there is one."""

    def __init__(self, kind: FailureKind, message: str, log_tail: str | None = None) -> None:
        super().__init__(kind, message, log_tail)
        self.kind = kind
        self.message = message
        self.log_tail = log_tail

    def __str__(self) -> str:
        return self.message
