"""Scripts that run in another process, for example those with bpy, which tests must not import."""

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

    The script gets its own temporary folder, which is deleted afterwards: bpy hangs when the
    interpreter shuts down, so such scripts end with `os._exit` and leave their temporary files.
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
