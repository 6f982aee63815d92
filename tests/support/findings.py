"""Findings of `lrm doctor`: of the whole command, or of single checks in a new process."""

import json
import os
import shlex
import subprocess
import sys

from tests.support.lrm import Answer
from tests.support.paths import REPOSITORY

SCRIPT = """
import dataclasses, json, sys
from pipelines.doctor import machine, reach
from pipelines.doctor import blender_child as blender
results = []
for name in sys.argv[1:]:
    match name:
        case "child":
            child = blender.start_child(gpu=False)
            results += [blender.check_child(child), *blender.check_network(child)]
        case "libraries":
            results.append(blender.check_libraries())
        case "hub":
            results.append(reach.check_objaverse())
        case _:
            arguments = ["tests"] * (name == "shared_memory")
            results.append(getattr(machine, f"check_{name}")(*arguments))
print(json.dumps([dataclasses.asdict(item) for item in results]))
"""
"""Prints the findings of the named checks; several seconds faster than a whole `lrm doctor`."""
Findings = dict[str, dict[str, str]]


def findings_by_name(answer: Answer, group: str = "build") -> Findings:
    """Return the findings of a group by name, whatever the exit code."""
    items = json.loads(answer.out)["groups"][group]
    return {item["what"]: item for item in items}


def run_in_shell(command: str, *, unshare: bool = False, **environment: str) -> Answer:
    """Run a command in bash; with `unshare` in new user and mount namespaces."""
    words = ["unshare", "--map-root-user", "--mount"] if unshare else []
    done = subprocess.run(
        [*words, "bash", "-c", command],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        cwd="/",
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def findings(
    *checks: str, before: str = "true", unshare: bool = False, **environment: str
) -> Findings:
    """Return the findings of these checks by name.

    They run in a new process of a bash shell that first executes the commands in `before`.
    """
    command = f"{before}; {shlex.join([sys.executable, '-c', SCRIPT, *checks])}"
    answer = run_in_shell(command, unshare=unshare, **environment)
    return {item["what"]: item for item in answer.json()}
