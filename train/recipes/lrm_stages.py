"""What both stages of the LRM share: settings, first weights, the loop over a batch's objects."""

import dataclasses
import json
from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import torch
import torch.distributed as dist
from pydantic import Field, field_validator
from torch import Tensor, nn

from core.storage import Storage
from train.checkpoints.initial_weights import absolute_source, check_source, initialize
from train.data.step_views import ViewChoiceConfig
from train.models.lpips import Lpips, LpipsConfig, find_weights, load_lpips
from train.models.lrm.losses import NerfLossConfig
from train.models.lrm.lrm import LRM, LRMConfig
from train.settings.train_config import TrainConfig

__all__ = ["LRMTrainConfig", "Objective", "load_init", "meta_batch"]

_INIT_FILE = "init.json"
"""In the run's folder: what it started from, and what became of the tensors."""


AnyLRM = TypeVar("AnyLRM", bound=LRM)


class LRMTrainConfig(TrainConfig, ABC):
    """What both stages add to every run."""

    preset: str = "base"
    """Size of the model: base, large (the paper's), small (one GPU) or tiny (a CPU)."""
    model: dict[str, Any] = Field(default_factory=dict)
    """Settings of the model that differ from the preset, such as {transformer: {channels: 80}}."""
    init: str | None = None
    """Weights to start from: openlrm:FILE, instantmesh:FILE, dino:FILE, or a run, one of its
    checkpoints, or what `lrm weights` wrote."""
    data: ViewChoiceConfig
    loss: NerfLossConfig
    lpips: LpipsConfig = LpipsConfig()

    @field_validator("init")
    @classmethod
    def _absolute(cls, source: str | None) -> str | None:
        # Workers stand in folders of their own.
        return None if source is None else absolute_source(source)

    @abstractmethod
    def model_sizes(self) -> LRMConfig:
        """The whole configuration of the model. Raises BadInput."""

    @abstractmethod
    def new_model(self) -> LRM:
        """The model with fresh weights."""

    def _recomputing(self, model: AnyLRM) -> AnyLRM:
        if self.activation_checkpointing:
            model.recompute_layers()
        return model

    def measure(self) -> Lpips | None:
        """The perceptual distance with its published weights, if it has a weight in the loss."""
        return load_lpips(self.lpips) if self.loss.lpips else None

    def check(self) -> None:
        """Raise BadInput if the settings do not fit each other."""
        super().check()
        self.data.check()
        self.model_sizes()
        if self.loss.lpips:
            find_weights(self.lpips)

    def check_start(self) -> None:
        """Raise BadInput if `init` does not fit the model."""
        if self.init is not None:
            with torch.device("meta"):
                model = self.new_model()
            check_source(model, self.model_sizes(), self.init)


ModelType = TypeVar("ModelType", bound=LRM)
LossType = TypeVar("LossType", bound=NerfLossConfig)


class Objective(nn.Module, ABC, Generic[ModelType, LossType]):
    """A model and its loss: DeepSpeed wraps what is called in training."""

    def __init__(self, model: ModelType, loss: LossType, lpips: Lpips | None) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        # A frozen network that only measures is no part of the trained state.
        self._lpips = [lpips] if lpips is not None else []

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Loss terms of a batch: means over its objects."""
        planes = self.model.forward_planes(
            batch["images"], batch["camera_to_world"], batch["intrinsics"]
        )
        each = []
        for i in range(len(planes)):
            one = {name: value[i : i + 1] for name, value in batch.items()}
            each.append(self.object_terms(planes[i : i + 1], one))
        return {name: torch.stack([terms[name] for terms in each]).mean() for name in each[0]}

    @abstractmethod
    def object_terms(self, planes: Tensor, one: dict[str, Tensor]) -> dict[str, Tensor]:
        """Loss terms of one object: a batch of one."""

    def lpips_on(self, device: torch.device) -> Lpips | None:
        """The perceptual distance, if it has a weight."""
        return self._lpips[0].to(device) if self._lpips else None


def meta_batch(
    data: ViewChoiceConfig, objects: int, image_size: int, target_size: int
) -> dict[str, Tensor]:
    """What both stages' steps see of a batch, as shapes: square pictures of these sides."""
    inputs, views = data.num_inputs, data.num_inputs + data.num_targets
    shapes = {
        "images": (inputs, 3, image_size, image_size),
        "camera_to_world": (inputs, 4, 4),
        "intrinsics": (inputs, 4),
        "target_rgb": (views, 3, target_size, target_size),
        "target_alpha": (views, 1, target_size, target_size),
        "target_camera_to_world": (views, 4, 4),
        "target_intrinsics": (views, 4),
    }
    return {name: torch.empty(objects, *shape, device="meta") for name, shape in shapes.items()}


def load_init(config: LRMTrainConfig, model: LRM, *, published_threshold: bool = False) -> None:
    """Fill a new model with the weights that `init` names, if it names some.

    What became of them is written to `init.json` in the run's folder.
    """
    if config.init is None:
        return
    report = initialize(model, config.init, published_threshold=published_threshold)
    if not dist.is_initialized() or dist.get_rank() == 0:
        record = {"init": config.init, **dataclasses.asdict(report)}
        Storage(config.out).write(_INIT_FILE, json.dumps(record, indent=1).encode())
