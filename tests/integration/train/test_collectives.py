"""Collective calls: every rank receives the result or the error of rank 0, and none hangs."""

import pytest

from tests.support.collective_calls import result_on_rank_0

CALLS = ["value", "lrm error", "other error"]


@pytest.mark.parametrize("call", CALLS)
def test_all_ranks_receive_the_result_or_error_of_rank_0(ranks, call):
    results = ranks.run(2, result_on_rank_0, call)
    assert results[0] == results[1]
    assert (
        results[0]
        == {
            "value": 7,
            "lrm error": "BadInput: no such run",
            "other error": "WorkFailed: rank 0: KeyError: 'owner'",
        }[call]
    )
