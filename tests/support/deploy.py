"""The cluster files and the operators' manual, as tests read them."""

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from tests.support.pages import FENCE, called, commands
from tests.support.paths import REPOSITORY

AWS, ON_PREMISE, KUBERAY = (
    REPOSITORY / name
    for name in ("cluster.yaml", "deploy/on-premise.yaml", "deploy/kuberay-rayjob.yaml")
)
MANUAL = REPOSITORY / "docs/guide/cluster.md"


def read(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def manual() -> list[list[str]]:
    """The words of every command of the operators' manual, those of its numbered steps included."""
    text = re.sub(r"^   ", "", MANUAL.read_text(), flags=re.MULTILINE)
    shell = [block for kind, block in FENCE.findall(text) if kind == "bash"]
    return [words for block in shell for words in commands(block)]


def documented_build(name: str) -> list[str]:
    """Of the job that the manual submits, or of the RayJob."""
    if name == "kuberay":
        return shlex.split(read(KUBERAY)["spec"]["entrypoint"])[1:]
    return next(rest for _, rest in map(called, manual()) if rest[:1] == ["build"])
