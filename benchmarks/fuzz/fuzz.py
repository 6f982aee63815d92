"""Spoilt files against the inspection and the Blender child: every outcome must have a name.

`python -m benchmarks fuzz --source DIR --minutes N` mutates the models below DIR. A case follows
from the seed and its number alone: `--case N` repeats it. A result or a failure of a named kind is
fine. Anything else is a violation (an exception, a hang, an orphan, a file left behind, numbers
that cannot be), and the exit code is 1.
"""

import argparse
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
"""Kinds of which the report says more."""
_NUM_NAMED = 6
_POLL_SECONDS = 1.0
_END_SECONDS = 30.0


def main(arguments: Sequence[str] | None = None, look: Callable[[Path], None] = inspect) -> int:
    """Run cases until the time is over, and report; the exit code. `look` is the inspection."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--source", type=Path, required=True, help="folder in Objaverse's layout")
    parser.add_argument("--classes", default=_CLASSES, help="of labels.json")
    parser.add_argument("--minutes", type=float, default=1.0, help="no new case after so long [1]")
    parser.add_argument("--cases", type=int, help="no more than so many")
    parser.add_argument("--case", type=int, help="repeat this one alone, and tell about it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time [1]")
    parser.add_argument("--targets", default="inspect,blender")
    parser.add_argument("--patience", type=float, default=400.0, help="seconds for a case [400]")
    parser.add_argument("--keep", type=Path, help="folder for the files of violations")
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
            _tell(plan, outcome, args.keep)
    _report(plan, outcomes, time.monotonic() - started)
    return 1 if any(outcome.violations for outcome in outcomes) else 0


def fuzz(plan: Plan, numbers: Iterator[int], jobs: int = 1) -> Iterator[Outcome]:
    """The outcomes of the cases with these numbers, as they come."""
    with tempfile.TemporaryDirectory(prefix="lrm-fuzz-") as folder:
        workers = [_Worker(plan, folder) for _ in range(jobs)]
        try:
            busy = [worker for worker in workers if worker.give(next(numbers, None))]
            while busy:
                ready = wait([worker.pipe for worker in busy], timeout=_POLL_SECONDS)
                for worker in list(busy):
                    if worker.pipe in ready or worker.hangs():
                        yield worker.take()
                        if not worker.give(next(numbers, None)):
                            busy.remove(worker)
            for worker in workers:
                yield from worker.end()
        finally:
            for worker in workers:
                worker.kill()


class _Worker:
    """A process that runs cases one after the other, with a Blender child of its own."""

    def __init__(self, plan: Plan, folder: str) -> None:
        self._plan = plan
        self._folder = folder
        self._number = -1
        self._since = 0.0
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._scratch = Path(tempfile.mkdtemp(dir=self._folder))
        self._process = context.Process(target=_serve, args=(self._plan, theirs, self._scratch))
        self._process.start()
        theirs.close()

    def give(self, number: int | None) -> bool:
        """Have a case run, if there is one."""
        if number is None:
            return False
        if not self._process.is_alive():
            self._start()
        self._number, self._since = number, time.monotonic()
        self.pipe.send(number)
        return True

    def hangs(self) -> bool:
        return time.monotonic() > self._since + self._plan.patience

    def take(self) -> Outcome:
        """What came of the case; a worker that hangs or died is a violation, and gone."""
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

    def end(self) -> Iterator[Outcome]:
        """Have the worker close its Blender child and end; what it leaves is a violation."""
        if not self._process.is_alive():
            return
        self.pipe.send(None)
        self._process.join(_END_SECONDS)
        code, left = self._process.exitcode, [path.name for path in self._scratch.iterdir()]
        if code != 0 or left:
            problem = f"after the last case: exit code {code}, files {left}"
            yield Outcome(self._number, violations=[problem])

    def kill(self) -> None:
        """End it at once; the kernel ends its Blender child with it."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _serve(plan: Plan, pipe: Connection, folder: Path) -> None:
    """Run the cases whose numbers come through the pipe, until None comes."""
    tempfile.tempdir = str(folder)
    with BlenderProcess(LIMITS) as blender:
        while (number := pipe.recv()) is not None:
            pipe.send(run_case(plan, number, blender, folder))


def _tell(plan: Plan, outcome: Outcome, keep: Path | None) -> None:
    """Print a case and how it was made, and keep its file."""
    data, recipe = plan.make(outcome.number)
    told = {"case": outcome.number, "seed": plan.seed, "recipe": recipe, "kinds": outcome.kinds}
    text = json.dumps(told | {"messages": outcome.messages}, indent=1)
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
    passed = [outcome for outcome in outcomes if outcome.kinds.get("inspect") == "ok"]
    columns = {name: Counter(one.kinds.get(name) for one in outcomes) for name in plan.targets}
    if len(columns) == 2:
        columns["blender, of those that inspect lets pass"] = Counter(
            one.kinds.get("blender") for one in passed
        )
    rows = sorted({kind for column in columns.values() for kind in column if kind})
    print("\n| outcome |", " | ".join(columns), "|\n|---" + "|---" * len(columns) + "|")
    for kind in rows:
        print(f"| {kind} |", " | ".join(str(column[kind]) for column in columns.values()), "|")
    if "blender" in plan.targets:
        memory = max((outcome.memory for outcome in outcomes), default=0)
        print(f"\nBlender children replaced: {sum(one.replaced for one in outcomes)}; ", end="")
        print(f"peak memory of one: {memory >> 20} MiB")
        _list_messages(outcomes)
    print(f"violations: {sum(bool(outcome.violations) for outcome in outcomes)}")


def _list_messages(outcomes: Sequence[Outcome]) -> None:
    """The costly failures by their message, the most frequent first, with the cases to repeat."""
    numbers = defaultdict(list)
    for outcome in outcomes:
        kind, message = outcome.kinds.get("blender"), outcome.messages.get("blender", "")
        if kind in _COSTLY:
            alike = re.sub(r"[-+.\w]*\d[-+.\w]*", "N", message)[:160]
            passed = outcome.kinds.get("inspect") == "ok"
            numbers[kind, alike].append(f"{outcome.number}{'*' if passed else ''}")
    for (kind, alike), found in sorted(numbers.items(), key=lambda item: -len(item[1])):
        named = ", ".join(found[:_NUM_NAMED])
        print(f"- {kind}, {len(found)} times: {alike} (cases {named})")
    if numbers:
        print("* inspect lets it pass")
