"""A short run of the chaos: a worker, a node and the driver killed for real."""

from benchmarks.chaos.chaos_train import chaos


def test_whatever_is_killed_the_run_ends_as_if_nothing_had_been(tmp_path):
    found = chaos(tmp_path, 12, ["worker", "raylet", "driver"], 0, 3, deadline=400)
    assert [kill.kind for kill in found.kills] == ["worker", "raylet", "driver"]
    assert found.driver_starts >= 2
    assert found.same_batches
    assert found.same_losses
    assert found.same_weights
    assert found.orphans == []
