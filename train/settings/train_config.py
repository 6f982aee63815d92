"""What every training run is told, whatever it trains."""

import re
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
)

from core.config import Config
from core.errors import BadInput
from core.retrying_storage import ReadConfig
from train.resilience.damaged_samples import FaultConfig
from train.resilience.step_guard import GuardConfig
from train.settings.deepspeed_file import read_deepspeed

__all__ = ["Decay", "OptimizerConfig", "TrainConfig"]

Decay = Annotated[float, Field(ge=0, lt=1)]
"""Of a moving average, per step."""


class OptimizerConfig(Config):
    """AdamW and its schedule; the defaults are those of LRM stage 1 in the paper."""

    learning_rate: PositiveFloat = 4e-4
    """At the end of the warm-up."""
    final_learning_rate: NonNegativeFloat = 4e-5
    """At the last step of the schedule; between the two lies a half cosine."""
    warmup_steps: NonNegativeInt = 0
    """Steps of linear growth from zero."""
    schedule_steps: PositiveInt | None = None
    """Length of the schedule in steps; by default the run's."""
    beta1: Decay = 0.9
    beta2: Decay = 0.95
    weight_decay: NonNegativeFloat = 0.01
    """On matrices; biases, norms and embeddings of one dimension have none."""
    gradient_clip: NonNegativeFloat = 1.0
    """Largest norm of the whole gradient; 0 turns clipping off."""


class TrainConfig(Config):
    """Data, place and length of a run. Recipes add what they train."""

    root: str
    """Folder or URI of the dataset."""
    snapshot: str
    """Id of the snapshot to train on."""
    out: str
    """Folder of the run: metrics, checkpoints, previews, TensorBoard's files."""
    checkpoints: str | None = None
    """Folder or URI of the checkpoints, by default below `out`. Those of an object store are
    uploaded while training goes on."""
    steps: PositiveInt = 100_000
    """Optimizer steps of the whole run, earlier starts counted in."""
    batch_size: PositiveInt = 64
    """Objects per step over all workers."""
    micro_batch: PositiveInt | None = None
    """Objects per worker and forward pass; by default the worker's whole share of a step."""
    seed: NonNegativeInt = 0
    """Seed of the order, of all draws per sample, and of the initial weights."""
    num_workers: PositiveInt | str = 1
    """Training processes; MIN:MAX takes as many as the cluster has room for."""
    worker_resources: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Ray's resources of one worker beside its GPU, such as {CPU: 12, train: 1}."""
    address: str = "local"
    """Ray: `local` starts one here, `auto` or HOST:PORT joins a cluster, `none` does without."""
    loader_workers: NonNegativeInt = 0
    """Processes per worker that read and decode; 0 reads in a thread of the training process."""
    loader_prefetch: PositiveInt = 2
    """Micro-batches that each of these processes has ready, in shared memory."""
    reading: ReadConfig = ReadConfig()
    data_faults: FaultConfig = FaultConfig()
    precision: Literal["fp32", "bf16"] = "fp32"
    activation_checkpointing: bool = False
    """Keep only what enters each layer of the transformers, or block of the UNet, and compute the
    rest again in the backward pass."""
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 1
    """DeepSpeed's ZeRO stage: what the workers share out instead of each holding all."""
    offload_optimizer: bool = False
    """Keep the optimizer's state in the machine's memory instead of the GPU's; ZeRO 1 to 3."""
    deepspeed: dict[str, Any] = Field(default_factory=dict)
    """Further keys of DeepSpeed's own configuration, or a JSON file of them, laid over those that
    are set here; what an option of the run says cannot be said again."""
    checkpoint_every: PositiveInt = 1000
    """Steps between checkpoints; the last step has one as well."""
    keep_checkpoints: PositiveInt = 3
    """Older checkpoints are removed,"""
    keep_every: NonNegativeInt = 0
    """but for those of every so many steps; 0 keeps none of them."""
    max_failed_saves: PositiveInt = 3
    """So many checkpoints in a row that could not be written end the run."""
    accept_changes: tuple[str, ...] = ()
    """Settings that may differ from the checkpoint's, such as [optimizer.learning_rate]; others
    than those that change no result are refused."""
    guard: GuardConfig = GuardConfig()
    watchdog_seconds: NonNegativeFloat = 1800.0
    """A worker that makes no progress for so long writes down its stacks and ends; 0 never."""
    check_memory: bool = True
    """Refuse to start if by estimate a step does not fit into a worker's memory."""
    slow_ranks_every: NonNegativeInt = 50
    """Steps between comparisons of the workers' speed; 0 makes none."""
    peak_flops: PositiveFloat | None = None
    """Of one device and second, in the run's precision, for the utilisation (MFU) in the metrics;
    by default that of a known GPU."""
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
    """How often a run whose workers died starts again without a new checkpoint in between."""
    optimizer: OptimizerConfig = OptimizerConfig()

    @field_validator("deepspeed", mode="before")
    @classmethod
    def _of_file(cls, given: Any) -> Any:
        # At once: workers stand in folders of their own, and the checkpoint pins what was in it.
        return read_deepspeed(given) if isinstance(given, str) else given

    @field_validator("num_workers")
    @classmethod
    def _whole_or_range(cls, given: int | str) -> int | str:
        if isinstance(given, int):
            return given
        found = re.fullmatch(r"([1-9]\d*)(?::([1-9]\d*))?", given)
        if found is None or (found[2] and int(found[2]) < int(found[1])):
            raise ValueError(f"give a number, or MIN:MAX such as 2:8, not {given!r}")
        return given if found[2] else int(given)

    @property
    def worker_counts(self) -> list[int]:
        """The numbers of workers that the run may have, the least first."""
        least, _, most = str(self.num_workers).partition(":")
        sizes = range(int(least), int(most or least) + 1)
        return [size for size in sizes if self.batch_size % size == 0]

    @property
    def world(self) -> int:
        """Training processes; of a range, the most."""
        return self.worker_counts[-1]

    @property
    def share(self) -> int:
        """Objects per worker and step."""
        return self.batch_size // self.world

    @property
    def micro(self) -> int:
        """Objects per worker and forward pass."""
        return self.micro_batch or self.share

    def check_start(self) -> None:
        """Raise BadInput if a new run could not start from what it names; one that goes on from a
        checkpoint is not asked."""

    def check(self) -> None:
        """Raise BadInput if batch, workers and micro-batch do not divide, or on a vague path."""
        if self.reading.cache is not None and not self.reading.cache.is_absolute():
            # Workers start in folders of their own.
            raise BadInput(f"reading.cache {self.reading.cache} is not an absolute path")
        if not self.worker_counts:
            raise BadInput(
                f"batch_size {self.batch_size} is not a multiple of num_workers {self.num_workers}"
            )
        for size in self.worker_counts:
            share = self.batch_size // size
            if share % (self.micro_batch or share):
                raise BadInput(
                    f"each worker's share of {share} objects is not a multiple of micro_batch "
                    f"{self.micro_batch}"
                )
        if self.offload_optimizer and not self.zero_stage:
            raise BadInput("offload_optimizer needs zero_stage 1, 2 or 3")
