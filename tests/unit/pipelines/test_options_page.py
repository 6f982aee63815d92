"""The options page of the docs is generated from the parsers."""

from pipelines.cli.options_page import render_page
from tests.support.paths import REPOSITORY

PAGE = REPOSITORY / "docs/reference/options.md"
COMMAND = "python -m pipelines.cli.options_page > docs/reference/options.md"


def test_the_page_has_the_options_of_the_parsers() -> None:
    page = PAGE.read_text()
    assert page == render_page(), f"an option changed: {COMMAND}"
    assert COMMAND in page
