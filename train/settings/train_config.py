"""The configuration that every training run has, for any recipe."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from core.config import (
    Config,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Renamed,
    Side,
)
from core.errors import BadInput
from core.retrying_storage import ReadConfig
from train.resilience.damaged_samples import FaultConfig
from train.resilience.step_guard import GuardConfig
from train.settings.deepspeed_file import read_deepspeed

__all__ = ["Decay", "OptimizerConfig", "TrainConfig"]

_MAX_WORKERS = 10**5
Decay = Annotated[float, Field(ge=0, lt=1)]
"""Decay of a moving average, per step."""


class OptimizerConfig(Config):
    """AdamW and its learning-rate schedule; the defaults are the paper's for LRM stage 1."""

    learning_rate: PositiveFloat = 4e-4
    """Learning rate at the end of the warm-up."""
    final_learning_rate: NonNegativeFloat = 4e-5
    """Learning rate at the last step of the schedule, reached along a half cosine."""
    warmup_steps: NonNegativeInt = 0
    """Number of steps in which the learning rate grows linearly from zero."""
    schedule_steps: PositiveInt | None = None
    """Length of the learning-rate schedule in steps; by default that of the run (--steps)."""
    beta1: Decay = 0.9
    """AdamW's decay of the first moment."""
    beta2: Decay = 0.95
    """AdamW's decay of the second moment."""
    weight_decay: NonNegativeFloat = 0.01
    """Weight decay of matrices; biases, norms and other vectors have none."""
    gradient_clip: NonNegativeFloat = 1.0
    """Maximum norm of the gradient over all parameters; 0 turns clipping off."""


def _loggers(tensorboard: bool, loggers: Sequence[str]) -> list[str]:
    """Return the loggers of a configuration with the old setting `tensorboard`."""
    return [name for name in loggers if tensorboard or name != "tensorboard"]


class TrainConfig(Config):
    """Data, output folder, length and resources of a run. Recipes add their own settings."""

    recipe: ClassVar[str] = ""
    """Name of the recipe that has these settings, as in `train.recipes.registry`."""
    needs_geometry: ClassVar[bool] = False
    """Whether the recipe trains on companion geometry: samples without it are left out."""
    fixed: ClassVar[frozenset[str]] = frozenset()
    """Settings with which no run resumes if they differ, not even with `accept_changes`."""
    renamed: ClassVar[Mapping[str, Renamed]] = {
        "tensorboard": Renamed("loggers", dropped_at=True, combine=_loggers, old_type=bool)
    }

    root: str
    """Folder or URI of the dataset."""
    snapshot: str
    """Snapshot to train on: its id, the start of its id, its name, or `latest`. The run keeps the
    snapshot that this means at its first start."""
    out: str
    """Folder of the run: metrics, checkpoints, previews. All workers must share it."""
    checkpoints: str | None = None
    """Folder or URI of the checkpoints, such as s3://bucket/run; by default a folder below --out.
    Checkpoints in an object store are uploaded while training continues."""
    steps: PositiveInt = 100_000
    """Number of optimizer steps of the whole run, including those of earlier starts."""
    batch_size: Annotated[int, Field(gt=0, le=10**6)] = 64
    """Number of objects per step, over all training workers."""
    micro_batch: PositiveInt | None = None
    """Number of objects per training worker and forward pass; by default batch_size /
    num_workers. A smaller number needs less memory: gradients are accumulated."""
    seed: NonNegativeInt = 0
    """Seed of the sample order, of all random draws, and of the initial weights."""
    num_workers: Annotated[int, Field(gt=0, le=_MAX_WORKERS)] | str = 1
    """Number of training workers (ranks), each with a GPU if there are any. MIN:MAX, such as 2:8,
    uses as many as the cluster has free slots for."""
    worker_resources: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Ray resources of one training worker besides its GPU, such as {CPU: 12, train: 1}."""
    address: str = "local"
    """Ray cluster: `local` starts Ray on this machine, `auto` or HOST:PORT joins a running cluster,
    `none` trains without Ray."""
    loader_workers: Annotated[int, Field(ge=0, le=1024)] = 0
    """Number of loader workers (processes that read and decode samples) per training worker; 0
    reads in a thread of the training worker."""
    loader_prefetch: Annotated[int, Field(gt=0, le=1024)] = 2
    """Number of micro batches that each loader worker keeps ready, in shared memory."""
    reading: ReadConfig = ReadConfig()
    data_faults: FaultConfig = FaultConfig()
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of weights and activations; with bf16 the optimizer keeps float32 copies of the
    weights."""
    activation_checkpointing: bool = False
    """Save memory: keep only the inputs of each transformer layer or UNet block, and compute the
    other activations again in the backward pass."""
    zero_stage: Annotated[int, Field(ge=0, le=3)] = 1
    """DeepSpeed's ZeRO stage. It splits over the training workers: 0 nothing, 1 the optimizer
    state, 2 also the gradients, 3 also the weights."""
    offload_optimizer: bool = False
    """Keep the optimizer state in CPU memory instead of GPU memory; needs ZeRO stage 1, 2 or 3."""
    deepspeed: dict[str, Any] = Field(default_factory=dict)
    """Further settings of DeepSpeed, or a JSON file of them, such as ds.json. They override those
    of this program, but cannot set what an option here sets."""
    checkpoint_every: PositiveInt = 1000
    """Number of steps between checkpoints; the last step always writes one."""
    keep_checkpoints: PositiveInt = 3
    """Number of newest checkpoints to keep; older ones are deleted."""
    keep_every: NonNegativeInt = 0
    """Also keep the checkpoints whose step is a multiple of this number; 0 keeps no others."""
    max_failed_saves: PositiveInt = 3
    """End the run after this many consecutive failures to write a checkpoint."""
    accept_changes: tuple[str, ...] = ()
    """Settings that may differ from those of the checkpoint when a run resumes, such as
    [optimizer.learning_rate]. Settings that change no result may always differ."""
    guard: GuardConfig = GuardConfig()
    watchdog_seconds: NonNegativeFloat = 1800.0
    """Seconds without progress after which a hung training worker writes its stacks and ends; 0
    turns the watchdog off."""
    check_memory: bool = True
    """Refuse to start if the estimated memory of a step exceeds that of a worker."""
    slow_ranks_every: NonNegativeInt = 50
    """Number of steps between comparisons of the training workers' speed; 0 turns it off."""
    peak_flops: Annotated[float, Field(gt=0, le=1e24)] | None = None
    """Peak FLOP/s of one device in the run's precision, such as 989e12, for the utilisation (MFU)
    in the metrics; by default that of a known GPU."""
    preview_every: NonNegativeInt = 500
    """Number of steps between preview images; 0 draws none."""
    preview_size: Side = 128
    """Side of each view in a preview image, in pixels."""
    validate_every: NonNegativeInt = 1000
    """Number of steps between validations on the snapshot's validation split; 0 turns validation
    off."""
    validation_samples: PositiveInt = 16
    """Maximum number of objects per validation: the first of the validation split by asset id."""
    loggers: tuple[str, ...] = ("tensorboard",)
    """Programs that also get the metrics, previews and settings: tensorboard (files below --out),
    wandb, mlflow; such as [tensorboard, wandb], or [] for none."""
    max_failures: NonNegativeInt = 3
    """Maximum number of restarts after a worker died, counted since the newest checkpoint."""
    optimizer: OptimizerConfig = OptimizerConfig()

    @field_validator("deepspeed", mode="before")
    @classmethod
    def _of_file(cls, given: Any) -> Any:
        # The file is read at once: workers have other working directories, and the checkpoint
        # records the content.
        return read_deepspeed(given) if isinstance(given, str) else given

    @field_validator("num_workers")
    @classmethod
    def _whole_or_range(cls, given: int | str) -> int | str:
        if isinstance(given, int):
            return given
        match = re.fullmatch(r"([1-9]\d*)(?::([1-9]\d*))?", given)
        if match is None or (match[2] and int(match[2]) < int(match[1])):
            raise ValueError(f"give a number, or MIN:MAX such as 2:8, not {given!r}")
        if int(match[2] or match[1]) > _MAX_WORKERS:
            raise ValueError(f"must be less than or equal to {_MAX_WORKERS}, got {given!r}")
        return given if match[2] else int(given)

    @property
    def worker_counts(self) -> list[int]:
        """The possible numbers of training workers, in ascending order."""
        least, _, most = str(self.num_workers).partition(":")
        sizes = range(int(least), int(most or least) + 1)
        return [size for size in sizes if self.batch_size % size == 0]

    @property
    def world_size(self) -> int:
        """World size: number of training workers (ranks); of a range, the largest."""
        return self.worker_counts[-1]

    @property
    def per_rank_batch(self) -> int:
        """Per-rank batch: objects per rank and step."""
        return self.batch_size // self.world_size

    @property
    def micro_batch_size(self) -> int:
        """Micro batch: objects per rank and forward pass."""
        return self.micro_batch or self.per_rank_batch

    def check_start(self) -> None:
        """Raise BadInput if a new run could not start from its initial weights.

        Not called for a run that resumes from a checkpoint.
        """

    def check(self) -> None:
        """Raise BadInput if the settings contradict each other, or the cache's path is relative."""
        if self.reading.cache is not None and not self.reading.cache.is_absolute():
            # A relative path would name another folder in each worker's working directory.
            raise BadInput(f"--reading.cache {self.reading.cache}: give an absolute path")
        if not self.worker_counts:
            raise BadInput(
                f"batch_size {self.batch_size} is not a multiple of num_workers {self.num_workers}"
            )
        for world_size in self.worker_counts:
            per_rank = self.batch_size // world_size
            if per_rank % (self.micro_batch or per_rank):
                raise BadInput(
                    f"the per-rank batch of {per_rank} objects (batch_size {self.batch_size}, "
                    f"{world_size} workers) is not a multiple of micro_batch {self.micro_batch}"
                )
        if self.offload_optimizer and not self.zero_stage:
            raise BadInput("offload_optimizer needs zero_stage 1, 2 or 3")
