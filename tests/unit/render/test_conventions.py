"""The examples on the conventions page run and hold."""

import re

from tests.support.paths import REPOSITORY

PAGE = REPOSITORY / "docs/reference/conventions.md"


def test_the_examples_of_the_page_hold():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 2
    assert sum(block.count("assert ") for block in blocks) >= 6
    exec(compile("\n".join(blocks), str(PAGE), "exec"), {})
