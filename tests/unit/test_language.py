"""The project uses the field's terms (docs/reference/glossary.md), not words of its own."""

import re
from pathlib import Path

from tests.support.paths import REPOSITORY
from tests.support.sources import PACKAGES

REPLACEMENTS = {
    "wish": "request",
    "workshop": "worker context",
    "patient": "retrying",
    "standing": "dataset state",
    "stand in": "replace, replacement",
    "judge": "evaluate, decide, validate",
    "heard": "received; heartbeat",
    "hearing": "signal handler",
    "worn": "applied",
    "settle": "resolve, sanitise",
    "reckon": "compute, estimate",
    "mend": "repair, fix",
    "goes by": "uses",
    "so many": "this many, at most N",
    "himself": "itself; name the program",
    "whoever": "a process that",
    "somebody": "another process, a user",
    "nobody": "no process, no user",
    "theirs": "name the thing",
}
"""Words that were this project's own, and what to write."""
_WORD = re.compile("|".join(word.replace(" ", "[ _-]") for word in REPLACEMENTS))
_FORMS = re.compile(rf"(?<![a-z])({_WORD.pattern})(e?s|e?d|ing|ins|ment)?(?![a-z])")


def test_words_of_our_own_are_not_used():
    files = [
        *(
            file
            for name in (*PACKAGES, "benchmarks", "tests")
            for file in (REPOSITORY / name).rglob("*.py")
            if file != Path(__file__)
        ),
        *(REPOSITORY / "docs").rglob("*.md"),
        REPOSITORY / "README.md",
    ]
    used = [
        f"{file.relative_to(REPOSITORY)}:{number}: {match[0]!r}; write {REPLACEMENTS[key]}"
        for file in files
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        for match in _FORMS.finditer(line.lower())
        if (key := match[1].replace("_", " ").replace("-", " ")) in REPLACEMENTS
    ]
    assert used == []
