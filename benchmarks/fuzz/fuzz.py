"""Test the inspection and the Blender child on damaged files.

`python -m benchmarks fuzz --source DIR --minutes N` damages the models below DIR in random ways. A
case depends only on the seed and its number, so `--case N` repeats it. A result, or a failure of a
known kind, is allowed. Anything else is a violation: an exception, a hang, an orphaned process, a
file that is left, impossible values. It prints violations as they occur and a table of outcomes,
and exits with 1 if there is a violation.
"""

import json
import multiprocessing
import re
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import count, takewhile
from multiprocessing.connection import Connection, wait
from pathlib import Path

from benchmarks.fuzz.fuzz_case import LIMITS, Outcome, Plan, inspect, run_case
from benchmarks.help_text import benchmark_parser
from benchmarks.real_models import choose_models
from core.failures import FailureKind
from render.process import BlenderProcess

__all__ = ["fuzz", "main"]

_CLASSES = "textured,animated,untextured,thin,lowpoly,multi_object,transparent,extension"
_COSTLY = (
    FailureKind.CRASH,
    FailureKind.TIMEOUT,
    FailureKind.OUT_OF_MEMORY,
    FailureKind.BAD_OUTPUT,
)
"""Kinds whose messages the report lists."""
_NUM_LISTED = 6
_POLL_SECONDS = 1.0
_STOP_SECONDS = 30.0


def main(arguments: Sequence[str] | None = None, look: Callable[[Path], None] = inspect) -> int:
    """Run cases until the time is over, report, and return the exit code.

    `look` is the function that inspects a file.
    """
    parser = benchmark_parser(__doc__)
    add = parser.add_argument
    add("--source", type=Path, required=True, help="folder of models in Objaverse's layout")
    add("--classes", default=_CLASSES, help="classes of labels.json, separated by commas")
    add("--minutes", type=float, default=1.0, help="time in minutes after which no case starts")
    add("--cases", type=int, help="maximum number of cases [default: no limit]")
    add("--case", type=int, help="repeat only this case, and print it")
    add("--seed", type=int, default=0, help="seed of all cases")
    add("--jobs", type=int, default=1, help="number of cases that run at the same time")
    add("--targets", default="inspect,blender", help="inspect, blender or both")
    add("--patience", type=float, default=400.0, help="time limit of a case in seconds")
    add("--keep", type=Path, metavar="DIR", help="folder for the files of violations")
    args = parser.parse_args(arguments)
    models = choose_models(args.source, args.classes.split(","))
    plan = Plan(models, args.seed, args.targets.split(","), look, args.patience)
    numbers = iter([args.case])
    started = time.monotonic()
    if args.case is None:
        every = count() if args.cases is None else range(args.cases)
        numbers = takewhile(lambda _: time.monotonic() < started + 60 * args.minutes, every)
    outcomes = []
    for outcome in fuzz(plan, numbers, args.jobs):
        outcomes.append(outcome)
        if outcome.violations or args.case is not None:
            _print_case(plan, outcome, args.keep)
    _report(plan, outcomes, time.monotonic() - started)
    return 1 if any(outcome.violations for outcome in outcomes) else 0


def fuzz(plan: Plan, numbers: Iterator[int], jobs: int = 1) -> Iterator[Outcome]:
    """Yield the outcomes of the cases with these numbers, in the order of completion."""
    with tempfile.TemporaryDirectory(prefix="lrm-fuzz-") as folder:
        workers = [_Worker(plan, folder) for _ in range(jobs)]
        try:
            busy = [worker for worker in workers if worker.start_case(next(numbers, None))]
            while busy:
                ready = wait([worker.pipe for worker in busy], timeout=_POLL_SECONDS)
                for worker in list(busy):
                    if worker.pipe in ready or worker.hangs():
                        yield worker.result()
                        if not worker.start_case(next(numbers, None)):
                            busy.remove(worker)
            for worker in workers:
                yield from worker.stop()
        finally:
            for worker in workers:
                worker.kill()


class _Worker:
    """A process with its own Blender child that runs one case at a time."""

    def __init__(self, plan: Plan, folder: str) -> None:
        self._plan = plan
        self._folder = folder
        self._number = -1
        self._since = 0.0
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, worker_end = context.Pipe()
        self._scratch = Path(tempfile.mkdtemp(dir=self._folder))
        self._process = context.Process(target=_serve, args=(self._plan, worker_end, self._scratch))
        self._process.start()
        worker_end.close()

    def start_case(self, number: int | None) -> bool:
        """Start a case; return False if `number` is None."""
        if number is None:
            return False
        if not self._process.is_alive():
            self._start()
        self._number, self._since = number, time.monotonic()
        self.pipe.send(number)
        return True

    def hangs(self) -> bool:
        """Return whether the case exceeds its time limit."""
        return time.monotonic() > self._since + self._plan.patience

    def result(self) -> Outcome:
        """Return the outcome of the case.

        If the worker hangs or has ended, that is a violation, and the worker is killed.
        """
        if self.pipe.poll():
            try:
                outcome: Outcome = self.pipe.recv()
                return outcome
            except EOFError:
                self._process.join()
                problem = f"the process ended with exit code {self._process.exitcode}"
        else:
            problem = f"no answer within {self._plan.patience:g} s"
        self.kill()
        return Outcome(self._number, violations=[problem])

    def stop(self) -> Iterator[Outcome]:
        """Stop the worker; yield a violation if it fails or leaves files."""
        if not self._process.is_alive():
            return
        self.pipe.send(None)
        self._process.join(_STOP_SECONDS)
        code, left = self._process.exitcode, [path.name for path in self._scratch.iterdir()]
        if code != 0 or left:
            problem = f"after the last case: exit code {code}, files {left}"
            yield Outcome(self._number, violations=[problem])

    def kill(self) -> None:
        """Kill the worker; the kernel kills its Blender child with it."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _serve(plan: Plan, pipe: Connection, folder: Path) -> None:
    """Run the cases whose numbers are received from the pipe, until None is received."""
    tempfile.tempdir = str(folder)
    with BlenderProcess(LIMITS) as blender:
        while (number := pipe.recv()) is not None:
            pipe.send(run_case(plan, number, blender, folder))


def _print_case(plan: Plan, outcome: Outcome, keep: Path | None) -> None:
    """Print a case and its mutations; save its file and this text in `keep`."""
    data, mutations = plan.make(outcome.number)
    summary = {
        "case": outcome.number,
        "seed": plan.seed,
        "recipe": mutations,
        "kinds": outcome.kinds,
    }
    text = json.dumps(summary | {"messages": outcome.messages}, indent=1)
    text = "\n".join([text, *outcome.violations])
    print(text, flush=True)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"case-{outcome.number}.glb").write_bytes(data)
        (keep / f"case-{outcome.number}.txt").write_text(text + "\n")


def _report(plan: Plan, outcomes: Sequence[Outcome], seconds: float) -> None:
    num_cases = len({outcome.number for outcome in outcomes})
    print(f"{num_cases} cases of {len(plan.models)} models, seed {plan.seed}, ", end="")
    print(f"{60 * num_cases / seconds:.0f} per minute")
    accepted = [outcome for outcome in outcomes if outcome.kinds.get("inspect") == "ok"]
    columns = {
        name: Counter(outcome.kinds.get(name) for outcome in outcomes) for name in plan.targets
    }
    if len(columns) == 2:
        columns["blender, of files that inspect accepts"] = Counter(
            outcome.kinds.get("blender") for outcome in accepted
        )
    rows = sorted({kind for column in columns.values() for kind in column if kind})
    print("\n| outcome |", " | ".join(columns), "|\n|---" + "|---" * len(columns) + "|")
    for kind in rows:
        print(f"| {kind} |", " | ".join(str(column[kind]) for column in columns.values()), "|")
    if "blender" in plan.targets:
        memory = max((outcome.memory for outcome in outcomes), default=0)
        print(
            f"\nBlender children replaced: {sum(outcome.replaced for outcome in outcomes)}; ",
            end="",
        )
        print(f"peak memory of one: {memory >> 20} MiB")
        _list_messages(outcomes)
    print(f"violations: {sum(bool(outcome.violations) for outcome in outcomes)}")


def _list_messages(outcomes: Sequence[Outcome]) -> None:
    """Print the costly failures by message, the most frequent first, with the numbers of cases."""
    numbers = defaultdict(list)
    for outcome in outcomes:
        kind, message = outcome.kinds.get("blender"), outcome.messages.get("blender", "")
        if kind in _COSTLY:
            pattern = re.sub(r"[-+.\w]*\d[-+.\w]*", "N", message)[:160]
            accepted = outcome.kinds.get("inspect") == "ok"
            numbers[kind, pattern].append(f"{outcome.number}{'*' if accepted else ''}")
    for (kind, pattern), cases in sorted(numbers.items(), key=lambda item: -len(item[1])):
        listed = ", ".join(cases[:_NUM_LISTED])
        print(f"- {kind}, {len(cases)} times: {pattern} (cases {listed})")
    if numbers:
        print("* inspect accepts the file")
