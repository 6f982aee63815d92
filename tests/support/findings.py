"""Findings of `lrm doctor`, of the whole command or of single checks in a new process."""

import json
import os
import shlex
import subprocess
import sys

from tests.support.lrm import Answer
from tests.support.paths import REPOSITORY

ASK = """
import dataclasses, json, sys
from pipelines.doctor import machine, reach
from pipelines.doctor import blender_child as blender
found = []
for name in sys.argv[1:]:
    match name:
        case "child":
            started = blender.start_child(gpu=False)
            found += [blender.check_child(started), *blender.check_network(started)]
        case "libraries":
            found.append(blender.check_libraries())
        case "hub":
            found.append(reach.check_objaverse())
        case _:
            found.append(getattr(machine, f"check_{name}")(*["tests"] * (name == "shared_memory")))
print(json.dumps([dataclasses.asdict(item) for item in found]))
"""
"""Prints the findings of the checks that are named: seconds less than a whole `lrm doctor`."""
Found = dict[str, dict[str, str]]


def by_name(answer: Answer, group: str = "build") -> Found:
    """The findings of a group, whatever the exit code."""
    found = json.loads(answer.out)["groups"][group]
    return {item["what"]: item for item in found}


def in_shell(command: str, *, unshare: bool = False, **environment: str) -> Answer:
    """Run a command in bash, in namespaces of its own if asked."""
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
) -> Found:
    """The findings of these checks in a new process, behind other commands in bash."""
    command = f"{before}; {shlex.join([sys.executable, '-c', ASK, *checks])}"
    answer = in_shell(command, unshare=unshare, **environment)
    return {item["what"]: item for item in answer.json()}
