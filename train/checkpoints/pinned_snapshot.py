"""The snapshot of a run by its id, so that every start of the run reads the same samples."""

from core.retrying_storage import RetryingStorage
from dataset.snapshots.references import LATEST, resolve
from train.checkpoints.checkpoint import latest_checkpoint
from train.checkpoints.checkpoint_paths import CheckpointPaths
from train.settings.train_config import TrainConfig

__all__ = ["pin_snapshot"]


def pin_snapshot(config: TrainConfig) -> TrainConfig:
    """Return the configuration with the id of its snapshot, which it may give in another way.

    `latest` is the newest snapshot at the first start of a run: a run that resumes keeps the one of
    its checkpoint, because the same command must continue it, unless `accept_changes` names the
    snapshot. Raises BadInput if there is no such snapshot.
    """
    checkpoint = None
    if config.snapshot == LATEST and "snapshot" not in config.accept_changes:
        checkpoint = latest_checkpoint(CheckpointPaths.of(config).storage)
    if checkpoint is not None and "snapshot" in checkpoint.manifest.config:
        snapshot_id = checkpoint.manifest.config["snapshot"]
    else:
        snapshot_id = resolve(RetryingStorage(config.root, config.reading), config.snapshot)
    return config.model_copy(update={"snapshot": snapshot_id})
