"""What one rank decides reaches all of them, also when it fails: nobody waits for ever."""

import pytest

from tests.support.collective_calls import answers

CALLS = ["value", "lrm error", "other error"]


@pytest.mark.parametrize("call", CALLS)
def test_all_ranks_get_the_answer_of_rank_0(ranks, call):
    found = ranks.run(2, answers, call)
    assert found[0] == found[1]
    assert (
        found[0]
        == {
            "value": 7,
            "lrm error": "BadInput: no such run",
            "other error": "WorkFailed: rank 0: KeyError: 'owner'",
        }[call]
    )
