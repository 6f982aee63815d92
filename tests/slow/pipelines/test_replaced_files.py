"""Every command on a dataset of which one file is made a folder or replaced."""

import pytest

from tests.support.damage_table import ROOT_COMMANDS


@pytest.mark.parametrize("damage", ["made a folder", "replaced"])
def test_every_command_with_each_file(damage_table, damage):
    violations = damage_table.violations(list(damage_table.files), damage, list(ROOT_COMMANDS))
    assert not violations, "\n".join(violations)
