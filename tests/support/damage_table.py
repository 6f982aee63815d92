"""Every command that reads a dataset or a run, on a damaged copy, and the verdict on its end."""

import itertools
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.damages import DAMAGES, copy_folder, kinds_of_files
from tests.support.local_training import run_local_training
from tests.support.lrm import Answer, run_lrm
from tests.support.train_arguments import SMALL

__all__ = ["OTHER_COMMANDS", "ROOT_COMMANDS", "RUN_COMMANDS", "SNAPSHOT", "DamageTable"]

_MAX_SECONDS = 30.0
_VOLATILE = re.compile(
    r' v1(?=:)|^loss .*|"silent_seconds": [0-9.]+|\d{4}-\d\d-\d\d[T ][0-9:.]+(\+00:00)?',
    re.MULTILINE,
)
_PROGRESS = re.compile(r"\[\d+:\d\d:\d\d\] .*|step \d+/.*|resum.*|snapshot .* has no validation .*")
_WARNING = re.compile(r"(lrm [a-z]+: )?warning: .*|.*\bretrying in .*")
_DAMAGE = re.compile(r"missing|torn|damaged|unreadable|lost|cannot")
_REMEDY = re.compile(r"`|lrm [a-z]+ |restore|delete|remove|repair|again|give|move|check|build")
ROOT, RUN, OUT, OBJECT, SNAPSHOT = "ROOT", "RUN", "OUT", "OBJECT", "v1"
_AT = ("--root", ROOT)
ROOT_COMMANDS: Mapping[str, Sequence[str]] = {
    "build": ("build", *_AT, "--address", "none"),
    "plan": ("plan", *_AT),
    "status": ("status", *_AT, "--json"),
    "history": ("history", *_AT, "--json"),
    "list": ("list", *_AT, "--columns", "asset_id,state,reason,kind,measure.thickness,caption"),
    "inspect": ("inspect", *_AT, OBJECT, "--json"),
    "report": ("report", *_AT, "--out", OUT, "--thumbnails", "0"),
    "verify": ("verify", *_AT, "--workers", "1"),
    "repair": ("repair", *_AT, "--json"),
    "retry": ("retry", *_AT, "--kind", "malformed"),
    "remove": ("remove", *_AT, OBJECT),
    "compact": ("compact", *_AT, "--json"),
    "compact --dry-run": ("compact", *_AT, "--dry-run", "--json"),
    "snapshot": ("snapshot", *_AT),
    "snapshot of another split": ("snapshot", *_AT, "--validation-share", "0.5"),
    "snapshot --list": ("snapshot", *_AT, "--list"),
    "snapshot --delete": ("snapshot", *_AT, "--delete", SNAPSHOT, "--force"),
    "diff": ("diff", SNAPSHOT, *_AT, "--json"),
    "export": (
        *("export", *_AT, "--snapshot", SNAPSHOT, "--layout", "trellis", "--split", "all"),
        *("--workers", "1", "--out", OUT),
    ),
}
"""Command lines that read a dataset; the words in capitals are replaced."""
RUN_COMMANDS: Mapping[str, Sequence[str]] = {
    "train": (
        *("train", "nerf", *_AT, "--snapshot", SNAPSHOT, "--out", RUN, *SMALL),
        *("--steps", "6", "--address", "none"),
    ),
    "train --status": ("train", "--status", RUN, "--json"),
    "train --status --verify": ("train", "--status", RUN, "--verify", "--json"),
    "weights": ("weights", "--run", RUN, "--out", f"{OUT}.safetensors"),
}
"""Command lines that read a run."""
_COMMANDS = {**ROOT_COMMANDS, **RUN_COMMANDS}
OTHER_COMMANDS = frozenset("multiview reconstruct evaluate doctor completion help".split())
"""Commands that read neither, or open them with the functions of `export` and `weights`."""
_WRITING = frozenset({"build", "repair", "retry", "remove", "compact", "snapshot --delete"})
"""Those after which the objects are listed: they must be the same as without the damage."""


@dataclass
class DamageTable:
    """A dataset with a snapshot that is damaged in copies, and the answers without damage."""

    base: Path
    """Folder of the dataset (`root`), and perhaps of a run that trains on it (`run`)."""
    folder: Path
    """Folder for the copies."""
    files: dict[str, Path] = field(init=False)
    """The files to damage, by kind: one of each kind, and the last commit."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _expected: dict[str, tuple[Answer, str | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._object = run_lrm("list", "--root", self.base / "root", "--state", "kept").out.split()[
            0
        ]
        self.files = {}
        for kind, files in kinds_of_files(self.base).items():
            # Every command reads the table of the stage `list`.
            self.files[kind] = next((file for file in files if "-list." in file.name), files[0])
            if "_delta_log" in kind:
                self.files[f"last {kind}"] = files[-1]

    def violations(self, kinds: Sequence[str], damage: str, commands: Sequence[str]) -> list[str]:
        """Return what is wrong with the ends of commands after one damage of each kind of file."""
        return [
            f"{command} | {kind} | {damage}: {problem}"
            for kind in kinds
            for command in commands
            for problem in self.problems(command, [(self.files[kind], damage)])
        ]

    def problems(self, command: str, damages: Sequence[tuple[Path, str]]) -> Iterator[str]:
        """Damage files in a copy, run a command there, and yield what is wrong with its end."""
        if command not in self._expected:
            self._expected[command] = self._run(command, [])
        expected, objects_expected = self._expected[command]
        started = time.monotonic()
        try:
            answer, objects = self._run(command, damages)
        except AssertionError as error:
            yield f"a bug: {str(error).splitlines()[-1]}"
            return
        seconds = time.monotonic() - started
        if seconds > _MAX_SECONDS:
            yield f"it took {seconds:.0f} s"
        lines = [line for line in answer.err.splitlines() if not _PROGRESS.fullmatch(line)]
        is_training = command == "train"  # which logs the damage that it works around
        errors = [
            line
            for line in lines
            if not _WARNING.fullmatch(line) and not (is_training and not line.startswith("lrm "))
        ]
        if answer.code not in (0, 1, 2):
            yield f"exit code {answer.code}"
        if len(errors) > 1:
            yield f"{len(errors)} lines of errors: {errors}"
        if answer.code != 0:
            text = answer.out + "\n".join(errors)
            if not any(name in text for path, _ in damages for name in self._names(path)):
                yield f"exit code {answer.code}, and no line names the file: {errors}"
            if answer.code != expected.code and not _REMEDY.search("".join(errors) or answer.out):
                yield f"no line says what to do: {errors}"
        elif len(lines) == len(errors) and not self._says_so(answer.out, damages):
            if answer.out != expected.out:
                yield f"another answer without a warning: {answer.out[-300:]}"
            elif objects not in (None, objects_expected):
                yield f"other objects without a warning: {objects[-300:]}"

    def _says_so(self, output: str, damages: Sequence[tuple[Path, str]]) -> bool:
        """Return whether the answer itself reports a damage."""
        names = {name for path, _ in damages for name in self._names(path)}
        reports = (line for line in output.splitlines() if _DAMAGE.search(line))
        # The state of a build without a record, and a checkpoint that lacks a file.
        if '"state": "unknown"' in output or '"whole": false' in output:
            return True
        return any(n in line for line in reports for n in names)

    def _names(self, path: Path) -> set[str]:
        """Return the names under which a line may report a file: the object's, or the folder's."""
        names = {path.name, path.name.partition(".")[0]} - {""}
        folder = path.parts[1]  # of the dataset or the run
        names |= {f"/{folder}"} if folder in ("catalog", "latest", "builds") else set()
        names |= {path.parent.name} if folder == "checkpoints" else set()
        return names | ({SNAPSHOT} if folder == "snapshots" else set())

    def _run(self, command: str, damages: Sequence[tuple[Path, str]]) -> tuple[Answer, str | None]:
        """Return the answer of a command in a damaged copy, and the objects that it leaves.

        They are None after a command that writes no events, and if they cannot be listed.
        """
        # Each has a name of its own: some warnings are printed once for a root.
        copy = copy_folder(self.base, self.folder / f"copy{next(self._numbers):07}")
        places = {ROOT: copy / "root", RUN: copy / "run", OUT: copy / "out", OBJECT: self._object}
        words = [self._word(word, places) for word in _COMMANDS[command]]
        try:
            for path, damage in damages:
                if (copy / path).is_file():  # another damage may be there already
                    DAMAGES[damage](copy / path)
            answer = (run_local_training if command == "train" else run_lrm)(*words)
            objects = None
            if command in _WRITING and answer.code == 0:
                listed = run_lrm("list", *words[1:3], "--columns", "asset_id,state")
                objects = listed.out if listed.code == 0 else None
            texts = (text.replace(copy.name, "copy") for text in (answer.out, answer.err))
            return Answer(answer.code, *(_VOLATILE.sub("", text) for text in texts)), objects
        finally:
            shutil.rmtree(copy)

    @staticmethod
    def _word(word: str, places: Mapping[str, Any]) -> str:
        name, dot, suffix = word.partition(".")
        return f"{places[name]}{dot}{suffix}" if name in places else word
