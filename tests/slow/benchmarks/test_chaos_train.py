"""A short run of the benchmark chaos_train, which kills a worker, a node and the driver."""

from benchmarks.chaos.chaos_train import chaos


def test_a_killed_run_has_the_same_batches_losses_and_weights(tmp_path):
    outcome = chaos(tmp_path, 12, ["worker", "raylet", "driver"], 0, 3, deadline=400)
    assert [kill.kind for kill in outcome.kills] == ["worker", "raylet", "driver"]
    assert outcome.driver_starts >= 2
    assert outcome.same_batches
    assert outcome.same_losses
    assert outcome.same_weights
    assert outcome.orphans == []
