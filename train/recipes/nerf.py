"""LRM stage 1: training of a triplane NeRF (InstantMesh, eq. 1)."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from core.storage import Storage
from dataset.snapshots.snapshot import Sample
from train.checkpoints.initial_weights import load_init
from train.data.patches import ViewDataConfig, ViewDataset
from train.data.step_views import ViewChoiceConfig
from train.data.whole_frames import FrameDataConfig, FrameDataset
from train.estimate.step_cost import MetaStep
from train.evaluation.metrics import picture_metrics
from train.loop.validation import NO_AUGMENTATION, SEED, SingleSampleDataset, held_out_views
from train.models.lpips import Lpips
from train.models.lrm.losses import NerfLossConfig, nerf_loss
from train.models.lrm.lrm import NerfLRM, NerfLRMConfig, nerf_preset
from train.models.lrm.published_weights import LRM_WEIGHTS
from train.monitoring.depth_and_normals import depth_normals
from train.recipes.lrm_preview import ObjectViews, comparison_picture
from train.recipes.lrm_stages import LRMTrainConfig, Objective, meta_batch

__all__ = ["NerfRecipe", "NerfTrainConfig"]


class NerfTrainConfig(LRMTrainConfig):
    """Settings of stage 1, in addition to those of both stages."""

    recipe: ClassVar[str] = "nerf"

    data: ViewDataConfig = ViewDataConfig()
    loss: NerfLossConfig = NerfLossConfig()

    def model_sizes(self) -> NerfLRMConfig:
        """Return the complete configuration of the model. Raises BadInput."""
        return nerf_preset(self.preset, self.model)

    def new_model(self) -> NerfLRM:
        """Return the model with random weights."""
        return self._with_checkpointing(NerfLRM(self.model_sizes()))


class NerfRecipe:
    """The recipe of stage 1."""

    def __init__(self, config: NerfTrainConfig) -> None:
        self.config = config

    def build(self, *, fresh: bool = True) -> nn.Module:
        """Return the objective with its model, with initial weights if `fresh`."""
        config = self.config
        model = config.new_model()
        if fresh:
            load_init(LRM_WEIGHTS, model, config.init, config.out)
        return _Objective(model, config.loss, config.perceptual_distance())

    def dataset(self, root: Storage, samples: Sequence[Sample]) -> ViewDataset:
        """Return input views and patches of all views."""
        config = self.config
        size = config.model_sizes().image_size
        return ViewDataset(root, samples, config.data, input_size=size, seed=config.seed)

    def preview_dataset(self, root: Storage, samples: Sequence[Sample]) -> FrameDataset:
        """Return the same input views, and whole frames of all views in the same world."""
        config = self.config
        frame_config = FrameDataConfig(
            **{name: getattr(config.data, name) for name in ViewChoiceConfig.model_fields},
            frame_size=config.preview_size,
        )
        size = config.model_sizes().image_size
        return FrameDataset(root, samples, frame_config, input_size=size, seed=config.seed)

    def validation_dataset(
        self, root: Storage, samples: Sequence[Sample]
    ) -> Dataset[dict[str, Tensor]]:
        """Return whole views at the largest target size, without augmentation."""
        side = self.config.data.target_size_max
        full_views = {"augment": NO_AUGMENTATION, "patch_size": side, "target_size_min": side}
        data = self.config.data.model_copy(update=full_views)
        size = self.config.model_sizes().image_size
        return SingleSampleDataset(
            lambda some: ViewDataset(root, some, data, input_size=size, seed=SEED), samples
        )

    def evaluate(self, module: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the metrics of views that were not input.

        psnr, ssim, mask_iou, and lpips if it has a weight in the loss.
        """
        assert isinstance(module, _Objective)
        views = held_out_views(batch)
        target_rgb, target_alpha = batch["target_rgb"][:, views], batch["target_alpha"][:, views]
        planes = module.model.forward_planes(
            batch["images"], batch["camera_to_world"], batch["intrinsics"]
        )
        cameras = batch["target_camera_to_world"][:, views], batch["target_intrinsics"][:, views]
        size = (target_rgb.shape[-2], target_rgb.shape[-1])
        predicted = module.model.render(planes, *cameras, size)
        lpips = module.lpips_on(planes.device)
        return picture_metrics(predicted.rgb, predicted.alpha, target_rgb, target_alpha, lpips)

    def meta_step(self) -> MetaStep:
        """Return a step on the meta device for the FLOPs and memory estimate.

        It has the shapes of a real step, and the cost of a step does not depend on values.
        """
        config = self.config
        sides = config.model_sizes().image_size, config.data.patch_size
        with torch.device("meta"):
            lpips = Lpips() if config.loss.lpips else None
            module = _Objective(config.new_model(), config.loss, lpips)

        def step(objects: int) -> Tensor:
            return module(meta_batch(config.data, objects, *sides))["loss"]

        return MetaStep(module=module, step=step, frozen={"lpips": lpips} if lpips else {})

    def preview(self, module: nn.Module, batch: dict[str, Tensor]) -> Image.Image:
        """Draw the input views, and targets and predictions from the same cameras."""
        assert isinstance(module, _Objective)
        size = (self.config.preview_size, self.config.preview_size)
        views = slice(len(batch["images"][0]))
        planes = module.model.forward_planes(
            batch["images"], batch["camera_to_world"], batch["intrinsics"]
        )
        cameras = batch["target_camera_to_world"][:, views], batch["input_intrinsics"]
        predicted = module.model.render(planes, *cameras, size)
        alpha, depth = predicted.alpha[0], predicted.depth[0]
        camera_to_world, intrinsics = (one[0].float() for one in cameras)
        normals = depth_normals(depth, camera_to_world, intrinsics)
        prediction = ObjectViews(rgb=predicted.rgb[0], alpha=alpha, depth=depth, normals=normals)
        item = {name: values[0] for name, values in batch.items()}
        target = ObjectViews.of_item(item, views)
        return comparison_picture(item["images"], target, prediction, size)


class _Objective(Objective[NerfLRM, NerfLossConfig]):
    def object_terms(self, planes: Tensor, one: dict[str, Tensor]) -> dict[str, Tensor]:
        size = (one["target_rgb"].shape[-2], one["target_rgb"].shape[-1])
        # Each object has its own generator, so its loss does not depend on the rest of the batch.
        generator = None
        if not planes.is_meta:
            generator = torch.Generator(planes.device).manual_seed(int(one["seed"]))
        cameras = one["target_camera_to_world"], one["target_intrinsics"]
        predicted = self.model.render(planes, *cameras, size, randomness=generator)
        targets = one["target_rgb"], one["target_alpha"]
        lpips = self.lpips_on(planes.device)
        return nerf_loss(predicted.rgb, predicted.alpha, *targets, self.loss, lpips)
