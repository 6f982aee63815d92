"""Readers of the cluster files and of the commands in the cluster guide."""

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from tests.support.pages import FENCE, called_program, commands
from tests.support.paths import REPOSITORY

AWS, ON_PREMISE, KUBERAY = (
    REPOSITORY / name
    for name in ("cluster.yaml", "deploy/on-premise.yaml", "deploy/kuberay-rayjob.yaml")
)
GUIDE = REPOSITORY / "docs/guide/cluster.md"


def read(path: Path) -> dict[str, Any]:
    """Return the content of a YAML file."""
    return yaml.safe_load(path.read_text())


def guide_commands() -> list[list[str]]:
    """Return the words of every command in the cluster guide, numbered steps included."""
    text = re.sub(r"^   ", "", GUIDE.read_text(), flags=re.MULTILINE)
    shell = [block for kind, block in FENCE.findall(text) if kind == "bash"]
    return [words for block in shell for words in commands(block)]


def documented_build(name: str) -> list[str]:
    """Return the arguments of the documented build: the guide's, or the RayJob's (`kuberay`)."""
    if name == "kuberay":
        return shlex.split(read(KUBERAY)["spec"]["entrypoint"])[1:]
    return next(rest for _, rest in map(called_program, guide_commands()) if rest[:1] == ["build"])
