"""A damaged file of a dataset: every command gives the right answer or names the file in a line."""

import pytest

from pipelines.cli.registry import COMMANDS
from tests.support.damage_table import OTHER_COMMANDS, ROOT_COMMANDS, RUN_COMMANDS
from tests.support.damages import DAMAGES

_PARTS = 4


def test_every_command_is_in_the_table():
    commands = {words[0] for words in (*ROOT_COMMANDS.values(), *RUN_COMMANDS.values())}
    assert {entry.name for entry in COMMANDS} <= commands | OTHER_COMMANDS


@pytest.mark.parametrize("part", range(_PARTS))
def test_every_command_every_file_and_every_damage(damage_table, part):
    """Each of them is in some pair; tests/slow has all combinations."""
    commands, kinds, damages = list(ROOT_COMMANDS), list(damage_table.files), list(DAMAGES)
    count = max(len(commands), len(kinds), len(damages))
    violations = [
        violation
        for number in range(part, count, _PARTS)
        for violation in damage_table.violations(
            [kinds[number % len(kinds)]],
            # Another damage in each round, and commands in another order than the files.
            damages[(number + number // len(damages)) % len(damages)],
            [commands[5 * number % len(commands)]],
        )
    ]
    assert not violations, "\n".join(violations)
