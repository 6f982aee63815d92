"""LRM stage 1: a triplane NeRF learns to show an object from every side (InstantMesh, eq. 1)."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import Dataset

from dataset.config import merge
from dataset.snapshot import Sample
from dataset.storage import Storage
from train.config import TrainConfig
from train.data import ViewDataConfig, ViewDataset
from train.losses import NerfLossConfig, nerf_loss
from train.lpips import Lpips, LpipsConfig, find_weights, load_lpips
from train.metrics import picture_metrics
from train.models.lrm import PRESETS, NerfLRM, NerfLRMConfig, nerf_preset
from train.outline import Outline
from train.preview import picture_rows
from train.validation import SEED, STILL, EachAlone, held_out

__all__ = ["NerfRecipe", "NerfTrainConfig"]


class NerfTrainConfig(TrainConfig):
    """What stage 1 adds to every run."""

    preset: str = "base"
    """Size of the model: base, large (the paper's), small (one GPU) or tiny (a CPU)."""
    model: dict[str, Any] = Field(default_factory=dict)
    """Settings of the model that differ from the preset, such as {nerf: {samples_per_ray: 64}}."""
    data: ViewDataConfig = ViewDataConfig()
    loss: NerfLossConfig = NerfLossConfig()
    lpips: LpipsConfig = LpipsConfig()

    def check(self) -> None:
        """Raise BadInput if the settings do not fit each other."""
        super().check()
        self.data.check()
        self.model_config_of_preset()
        if self.loss.lpips:
            find_weights(self.lpips)

    def model_config_of_preset(self) -> NerfLRMConfig:
        """The whole configuration of the model. Raises BadInput."""
        nerf_preset(self.preset)
        return NerfLRMConfig.load(merge(PRESETS[self.preset], self.model), where="model")


class NerfRecipe:
    """Builds and shows stage 1."""

    def __init__(self, config: NerfTrainConfig) -> None:
        self.config = config
        self._model_config = config.model_config_of_preset()

    def build(self) -> nn.Module:
        """The model inside its objective."""
        loss, lpips = self.config.loss, self.config.lpips
        measure = load_lpips(lpips) if loss.lpips else None
        return _Objective(NerfLRM(self._model_config), loss, measure)

    def outline(self) -> Outline:
        """Input views and patches as a step sees them; what is sampled does not depend on them."""
        data, side = self.config.data, self._model_config.image_size
        inputs, views = data.num_inputs, data.num_inputs + data.num_targets
        shapes = {
            "images": (inputs, 3, side, side),
            "camera_to_world": (inputs, 4, 4),
            "intrinsics": (inputs, 4),
            "target_rgb": (views, 3, data.patch_size, data.patch_size),
            "target_alpha": (views, 1, data.patch_size, data.patch_size),
            "target_camera_to_world": (views, 4, 4),
            "target_intrinsics": (views, 4),
        }
        with torch.device("meta"):
            lpips = Lpips() if self.config.loss.lpips else None
            module = _Objective(NerfLRM(self._model_config), self.config.loss, lpips)

        def step(objects: int) -> Tensor:
            batch = {
                name: torch.empty(objects, *shape, device="meta") for name, shape in shapes.items()
            }
            return module(batch)["loss"]

        return Outline(module=module, step=step, frozen={"lpips": lpips} if lpips else {})

    def dataset(self, root: Storage, samples: Sequence[Sample]) -> Dataset[dict[str, Tensor]]:
        """Input views and patches of all views."""
        size = self._model_config.image_size
        seed = self.config.seed
        return ViewDataset(root, samples, self.config.data, input_size=size, seed=seed)

    def validation_dataset(
        self, root: Storage, samples: Sequence[Sample]
    ) -> Dataset[dict[str, Tensor]]:
        """Whole views at the largest size of a target."""
        side = self.config.data.target_size_max
        whole = {"augment": STILL, "patch_size": side, "target_size_min": side}
        data = self.config.data.model_copy(update=whole)
        size = self._model_config.image_size
        return EachAlone(
            lambda some: ViewDataset(root, some, data, input_size=size, seed=SEED), samples
        )

    def evaluate(self, module: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """psnr, ssim, mask_iou, and lpips if the loss has it, of views that were not input."""
        assert isinstance(module, _Objective)
        views = held_out(batch)
        target_rgb, target_alpha = batch["target_rgb"][:, views], batch["target_alpha"][:, views]
        planes = module.model.forward_planes(
            batch["images"], batch["camera_to_world"], batch["intrinsics"]
        )
        shown = module.model.render(
            planes,
            batch["target_camera_to_world"][:, views],
            batch["target_intrinsics"][:, views],
            (target_rgb.shape[-2], target_rgb.shape[-1]),
        )
        lpips = module.lpips(planes.device)
        return picture_metrics(shown.rgb, shown.alpha, target_rgb, target_alpha, lpips)

    def preview(self, module: nn.Module, batch: dict[str, Tensor]) -> Image.Image:
        """Rows of pictures: the input views, and what the model shows from the same cameras."""
        assert isinstance(module, _Objective)
        size = (self.config.preview_size, self.config.preview_size)
        views = batch["images"].shape[1]
        planes = module.model.forward_planes(
            batch["images"], batch["camera_to_world"], batch["intrinsics"]
        )
        cameras = batch["target_camera_to_world"][:, :views]
        full = batch["input_intrinsics"]
        shown = module.model.render(planes, cameras, full, size)
        near, far = shown.depth.amin(), shown.depth.amax()
        depth = (far - shown.depth) / (far - near).clamp(min=1e-6) * shown.alpha
        return picture_rows(
            {
                "input": batch["images"][0],
                "rgb": shown.rgb[0],
                "alpha": shown.alpha[0],
                "depth": depth[0],
            },
            size,
        )


class _Objective(nn.Module):
    """The model and its loss: DeepSpeed wraps what is called in training."""

    def __init__(self, model: NerfLRM, loss: NerfLossConfig, lpips: Lpips | None) -> None:
        super().__init__()
        self.model = model
        self._loss = loss
        # A frozen network that only measures is no part of the trained state.
        self._lpips = [lpips] if lpips is not None else []

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Loss terms of a batch: means over its objects, each with its own random numbers."""
        planes = self.model.forward_planes(
            batch["images"], batch["camera_to_world"], batch["intrinsics"]
        )
        each = [self._object(planes[i : i + 1], batch, i) for i in range(len(planes))]
        return {name: torch.stack([terms[name] for terms in each]).mean() for name in each[0]}

    def _object(self, planes: Tensor, batch: dict[str, Tensor], i: int) -> dict[str, Tensor]:
        one = {name: value[i : i + 1] for name, value in batch.items()}
        size = (one["target_rgb"].shape[-2], one["target_rgb"].shape[-1])
        generator = None
        if not planes.is_meta:
            generator = torch.Generator(planes.device).manual_seed(int(one["seed"]))
        shown = self.model.render(
            planes,
            one["target_camera_to_world"],
            one["target_intrinsics"],
            size,
            randomness=generator,
        )
        lpips = self.lpips(planes.device)
        return nerf_loss(
            shown.rgb, shown.alpha, one["target_rgb"], one["target_alpha"], self._loss, lpips
        )

    def lpips(self, device: torch.device) -> Lpips | None:
        """The network that measures, if the loss has it."""
        return self._lpips[0].to(device) if self._lpips else None
