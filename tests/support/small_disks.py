"""Run every command on a full and on a read-only disk: `python -m tests.support.small_disks BASE`.

BASE has a dataset in `root` and an empty folder `disk`. It must start in a mount namespace of its
own (`unshare --mount`). It prints the answers as JSON: disk, command, exit code, output, errors.
"""

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.damage_table import OBJECT, OUT, ROOT, ROOT_COMMANDS
from tests.support.lrm import run_lrm

__all__ = ["main"]

_SIZE = "size=64m"
_SPARE_FOR_COMPACT = "compact with garbage"


def main(base: Path) -> None:
    """Print the answers."""
    ids = run_lrm("list", "--root", base / "root", "--state", "kept").out.split()
    answers = []
    for kind in ("full", "read-only"):
        for name, words in (ROOT_COMMANDS | {_SPARE_FOR_COMPACT: ROOT_COMMANDS["compact"]}).items():
            disk = base / "disk"
            with _small_disk(disk, base / "root"):
                places = {ROOT: str(disk / "root"), OUT: str(disk / "out"), OBJECT: ids[0]}
                if name == _SPARE_FOR_COMPACT:
                    run_lrm("snapshot", "--root", disk / "root", "--delete", "v1", "--force")
                    run_lrm("remove", "--root", disk / "root", *ids)
                before = _used(disk / "root")
                _fill(disk) if kind == "full" else _mount("-o", "remount,ro", disk)
                answer = run_lrm(*(places.get(word, word) for word in words))
                freed = before - _used(disk / "root")
            answers.append([kind, name, answer.code, answer.out, answer.err, freed])
    print(json.dumps(answers))


@contextlib.contextmanager
def _small_disk(disk: Path, root: Path) -> Iterator[None]:
    """Mount a small disk with a copy of a dataset."""
    _mount("-t", "tmpfs", "-o", _SIZE, "none", disk)
    try:
        shutil.copytree(root, disk / "root")
        yield
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def _mount(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True)


def _fill(disk: Path) -> None:
    with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass


def _used(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
