"""Scripts in a process of their own, such as those with bpy: tests must not import it."""

import os
import subprocess
import sys
import tempfile

from tests.support.paths import REPOSITORY

__all__ = ["run_script"]


def run_script(
    code: str, *words: object, seconds: float = 60, text: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python code with the checkout on its path; `text` is its standard input.

    Its temporary folder ends with it: bpy hangs in the interpreter's own clean-up, so such scripts
    leave by `os._exit`, and their temporary files stay.
    """
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, words)],
            cwd=REPOSITORY,
            env=os.environ | {"TMPDIR": folder, "PYTHONPATH": str(REPOSITORY)},
            input=text,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
