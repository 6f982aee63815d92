"""Run random commands on a dataset and a run with random damage.

`python -m benchmarks damage --cases N` builds the demo's dataset with a snapshot and trains a tiny
model on it. A case damages one to three files of a copy (deletes, cuts or empties them, puts a
folder, a link or a pipe in their place, ...) and runs one command there. A case depends only on the
seed and its number, so `--case N` repeats it. The command must give the answer that it gives
without damage, or say in one line what is wrong. Anything else is a violation: a bug, a signal, a
hang, another answer without a warning. It prints violations as they occur and a table of commands
and damages, and exits with 1 if there is a violation.
"""

import multiprocessing
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

from benchmarks.help_text import benchmark_parser
from pipelines.demo.demo_mirror import write_demo_source
from tests.support.damage_table import ROOT_COMMANDS, RUN_COMMANDS, SNAPSHOT, DamageTable
from tests.support.damages import DAMAGES
from tests.support.datasets import BuiltDataset
from tests.support.local_training import run_local_training
from tests.support.lrm import Answer, run_lrm
from tests.support.train_arguments import SMALL

__all__ = ["Case", "main", "make_base"]

_MAX_DAMAGES = 3
_STEPS = ("2", "4")
"""Steps of the run before the damage: it has two checkpoints."""
_START_SECONDS = 300.0
"""Time in seconds for a worker to start and to run each command without damage."""

Case = tuple[str, list[tuple[Path, str]]]
"""A command, and the damaged files with their damage."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases, report, and return the exit code."""
    parser = benchmark_parser(__doc__)
    add = parser.add_argument
    add("--source", type=Path, help="folder of models in Objaverse's layout [default: the demo's]")
    add("--base", type=Path, help="folder of the dataset and the run; they are made if it is new")
    add("--cases", type=int, default=500, help="number of cases")
    add("--case", type=int, help="repeat only this case")
    add("--seed", type=int, default=0, help="seed of all cases")
    add("--jobs", type=int, default=2, help="number of cases that run at the same time")
    add("--patience", type=float, default=60.0, help="time limit of a case in seconds")
    args = parser.parse_args(arguments)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lrm-damage-") as folder:
        base = args.base or Path(folder) / "base"
        if not base.exists():
            make_base(base, args.source)
        files = list(DamageTable(base, Path(folder)).files.values())
        numbers = range(args.cases) if args.case is None else [args.case]
        cases = {number: make_case(args.seed, number, files) for number in numbers}
        done: Counter[tuple[str, str]] = Counter()
        bad: Counter[tuple[str, str]] = Counter()
        for number, problems in _run_cases(cases, base, Path(folder), args.jobs, args.patience):
            command, damages = cases[number]
            for _, damage in damages:
                done[command, damage] += 1
                bad[command, damage] += bool(problems)
            for problem in problems:
                where = ", ".join(f"{path} {damage}" for path, damage in damages)
                print(f"case {number}: {command} | {where} | {problem}", flush=True)
    num_bad = _report(done, bad)
    print(f"{len(cases)} cases, seed {args.seed}, {time.monotonic() - started:.0f} s")
    return 1 if num_bad else 0


def make_base(base: Path, source: Path | None) -> None:
    """Build a dataset with a snapshot, and a run that trains on it, in a new folder."""
    if source is None:
        source = base / "source"
        write_demo_source(source)
    root = base / "root"
    steps = [["build", *BuiltDataset(root, source.absolute()).words, "--root", root, "--geometry"]]
    steps += [["snapshot", "--root", root, "--name", SNAPSHOT]]
    for words in steps:
        _expect_success(run_lrm(*words))
    train = ["train", "nerf", "--root", root, "--snapshot", SNAPSHOT, "--out", base / "run", *SMALL]
    for steps_until in _STEPS:
        _expect_success(run_local_training(*train, "--steps", steps_until))


def _expect_success(answer: Answer) -> None:
    if answer.code:
        raise RuntimeError(f"the dataset or the run cannot be made: {answer.err}")


def make_case(seed: int, number: int, files: Sequence[Path]) -> Case:
    """Return a case: a command, and damage to files that it may read."""
    rng = random.Random(f"{seed} {number}")
    command = rng.choice([*ROOT_COMMANDS, *RUN_COMMANDS])
    # The commands of a run read little of the dataset.
    is_of_run = command in RUN_COMMANDS
    weights = [4 if (path.parts[0] == "run") == is_of_run else 1 for path in files]
    count = rng.randint(1, _MAX_DAMAGES)
    chosen = dict.fromkeys(rng.choices(files, weights, k=count))
    return command, [(path, rng.choice(list(DAMAGES))) for path in chosen]


def _run_cases(
    cases: dict[int, Case], base: Path, folder: Path, jobs: int, patience: float
) -> Iterator[tuple[int, list[str]]]:
    """Yield the numbers and the violations of the cases, in the order of completion."""
    numbers = iter(cases)
    workers = [_Worker(base, folder) for _ in range(jobs)]
    try:
        busy = [worker for worker in workers if worker.start_case(next(numbers, None), cases)]
        while busy:
            ready = wait([worker.pipe for worker in busy], timeout=1.0)
            for worker in list(busy):
                if worker.pipe in ready or worker.hangs(patience):
                    yield worker.number, worker.result()
                    if not worker.start_case(next(numbers, None), cases):
                        busy.remove(worker)
    finally:
        for worker in workers:
            worker.kill()


class _Worker:
    """A process that runs one case at a time; a new one replaces it after a hang."""

    def __init__(self, base: Path, folder: Path) -> None:
        self._base, self._folder = base, folder
        self.number = -1
        self._since = 0.0
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, worker_end = context.Pipe()
        scratch = Path(tempfile.mkdtemp(dir=self._folder))
        self._process = context.Process(target=_serve, args=(self._base, scratch, worker_end))
        self._process.start()
        worker_end.close()
        self._is_new = True

    def start_case(self, number: int | None, cases: dict[int, Case]) -> bool:
        """Start a case; return False if `number` is None."""
        if number is None:
            return False
        if not self._process.is_alive():
            self._start()
        self.number, self._since = number, time.monotonic()
        self.pipe.send(cases[number])
        return True

    def hangs(self, patience: float) -> bool:
        """Return whether the case exceeds its time limit."""
        return time.monotonic() > self._since + patience + _START_SECONDS * self._is_new

    def result(self) -> list[str]:
        """Return the violations of the case; a worker that hangs is killed."""
        self._is_new = False
        if self.pipe.poll():
            try:
                problems: list[str] = self.pipe.recv()
                return problems
            except EOFError:
                self._process.join()
                return [f"the process ended with exit code {self._process.exitcode}"]
        self.kill()
        return ["a hang"]

    def kill(self) -> None:
        """Kill the worker."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _serve(base: Path, folder: Path, pipe: Connection) -> None:
    """Run the cases that are received from the pipe."""
    copies = folder / "copies"
    copies.mkdir()
    table = DamageTable(base, copies)
    while True:
        command, damages = pipe.recv()
        pipe.send(list(table.problems(command, damages)))
        shutil.rmtree(copies)
        copies.mkdir()


def _report(done: Counter[tuple[str, str]], bad: Counter[tuple[str, str]]) -> int:
    """Print the number of cases, and of violations among them; return that of violations."""
    print("\n| command |", " | ".join(DAMAGES), "|\n|---" + "|---" * len(DAMAGES) + "|")
    for command in (*ROOT_COMMANDS, *RUN_COMMANDS):
        cells = [
            f"{done[command, damage]}"
            + f" ({bad[command, damage]} bad)" * bool(bad[command, damage])
            for damage in DAMAGES
        ]
        print(f"| {command} |", " | ".join(cells), "|")
    num_bad = sum(bad.values())
    print(f"\ndamaged files in cases with violations: {num_bad} of {sum(done.values())}")
    return num_bad
