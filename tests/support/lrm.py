"""The command line as a test calls it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from tests.support.paths import REPOSITORY


@dataclass(frozen=True)
class Answer:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


def run_lrm(*words: Any, **environment: str) -> Answer:
    """Run `lrm` as a user would, from another folder than the repository."""
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200", **environment},
        cwd="/",
    )
    return Answer(done.returncode, done.stdout, done.stderr)
