"""What every training run is told, whatever it trains."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from dataset.config import Config
from dataset.errors import BadInput
from dataset.patient import ReadConfig

__all__ = ["OptimizerConfig", "TrainConfig"]


class OptimizerConfig(Config):
    """AdamW and its schedule; the defaults are those of LRM stage 1 in the paper."""

    learning_rate: Annotated[float, Field(gt=0)] = 4e-4
    """At the end of the warm-up."""
    final_learning_rate: Annotated[float, Field(ge=0)] = 4e-5
    """At the last step of the schedule; between the two lies a half cosine."""
    warmup_steps: NonNegativeInt = 0
    """Steps of linear growth from zero."""
    schedule_steps: PositiveInt | None = None
    """Length of the schedule in steps; by default the run's."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """On matrices; biases, norms and embeddings of one dimension have none."""
    gradient_clip: Annotated[float, Field(ge=0)] = 1.0
    """Largest norm of the whole gradient; 0 turns clipping off."""


class TrainConfig(Config):
    """Data, place and length of a run. Recipes add what they train."""

    root: str
    """Folder or URI of the dataset."""
    snapshot: str
    """Id of the snapshot to train on."""
    out: str
    """Folder of the run: metrics, checkpoints, previews, TensorBoard's files."""
    steps: PositiveInt = 100_000
    """Optimizer steps of the whole run, earlier starts counted in."""
    batch_size: PositiveInt = 64
    """Objects per step over all workers."""
    micro_batch: PositiveInt | None = None
    """Objects per worker and forward pass; by default the worker's whole share of a step."""
    seed: NonNegativeInt = 0
    """Seed of the order, of all draws per sample, and of the initial weights."""
    num_workers: PositiveInt = 1
    """Training processes."""
    address: str = "local"
    """Ray: `local` starts one here, `auto` or HOST:PORT joins a cluster, `none` does without."""
    loader_workers: NonNegativeInt = 0
    """Processes per worker that read and decode; 0 reads in a thread of the training process."""
    loader_prefetch: PositiveInt = 2
    """Micro-batches that each of these processes has ready, in shared memory."""
    reading: ReadConfig = ReadConfig()
    precision: Literal["fp32", "bf16"] = "fp32"
    zero_stage: Annotated[int, Field(ge=0, le=2)] = 1
    """DeepSpeed's ZeRO stage: what the workers share out instead of each holding all."""
    deepspeed: dict[str, Any] = Field(default_factory=dict)
    """Further keys of DeepSpeed's own configuration, laid over those that are set here."""
    checkpoint_every: PositiveInt = 1000
    """Steps between checkpoints; the last step has one as well."""
    keep_checkpoints: PositiveInt = 3
    """Older checkpoints are removed."""
    preview_every: NonNegativeInt = 500
    """Steps between preview pictures; 0 makes none."""
    preview_size: PositiveInt = 128
    """Side of the pictures in a preview, in pixels."""
    validate_every: NonNegativeInt = 1000
    """Steps between validations on the snapshot's validation split; 0 makes none."""
    validation_samples: PositiveInt = 16
    """Objects of the validation split, the first by asset id, that each validation looks at."""
    tensorboard: bool = True
    """Write curves and previews for TensorBoard, below the run's folder."""
    max_failures: NonNegativeInt = 3
    """How often a run whose workers died starts again by itself."""
    optimizer: OptimizerConfig = OptimizerConfig()

    @property
    def share(self) -> int:
        """Objects per worker and step."""
        return self.batch_size // self.num_workers

    @property
    def micro(self) -> int:
        """Objects per worker and forward pass."""
        return self.micro_batch or self.share

    def check(self) -> None:
        """Raise BadInput if batch, workers and micro-batch do not divide, or on a vague path."""
        if self.reading.cache is not None and not self.reading.cache.is_absolute():
            # Workers start in folders of their own.
            raise BadInput(f"reading.cache {self.reading.cache} is not an absolute path")
        if self.batch_size % self.num_workers:
            raise BadInput(
                f"batch_size {self.batch_size} is not a multiple of num_workers {self.num_workers}"
            )
        if self.share % self.micro:
            raise BadInput(
                f"each worker's share of {self.share} objects is not a multiple of micro_batch "
                f"{self.micro}"
            )
