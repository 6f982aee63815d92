"""A short run of the benchmark power_loss: some steps of some commands."""

import pytest

from benchmarks.chaos.power_loss import lose_power

# Of each command, the distance between two losses in steps.
EVERY = {"refresh": 12, "remove": 4, "compact": 6, "second snapshot": 6, "repair": 4, "export": 2}


@pytest.mark.parametrize("name", EVERY)
def test_a_command_continues_after_a_loss_of_power_and_nothing_it_reported_is_lost(tmp_path, name):
    outcome = lose_power(tmp_path, name, num_random=1, every=EVERY[name])
    assert outcome.problems == {}, outcome.examples
    assert outcome.disks >= 5
