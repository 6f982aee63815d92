"""LRM stage 2: training of the triplane model with an explicit mesh (InstantMesh, eq. 4)."""

import logging
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from core.config import NonNegativeFloat, PositiveFloat
from core.storage import Storage
from dataset.snapshots.snapshot import Sample
from train.checkpoints.initial_weights import load_init
from train.data.whole_frames import FrameDataConfig, FrameDataset
from train.estimate.mesh_step import ASSUMED, mesh_step_tensors, sphere_cells
from train.estimate.step_cost import MetaStep
from train.evaluation.metrics import picture_metrics
from train.loop.validation import NO_AUGMENTATION, SEED, SingleSampleDataset, held_out_views
from train.models.lpips import Lpips
from train.models.lrm.losses import Distance, MeshLossConfig, mesh_loss, nerf_loss
from train.models.lrm.lrm import MeshLRM, MeshLRMConfig, mesh_preset
from train.models.lrm.published_weights import LRM_WEIGHTS
from train.models.recompute import recompute_in_backward
from train.recipes.lrm_preview import ObjectViews, comparison_picture
from train.recipes.lrm_stages import LRMTrainConfig, Objective, meta_batch
from train.settings.train_config import OptimizerConfig

__all__ = ["MeshRecipe", "MeshTrainConfig", "view_by_view"]

_log = logging.getLogger(__name__)


class MeshOptimizerConfig(OptimizerConfig):
    """AdamW and its learning-rate schedule; the defaults are those of stage 2 as published."""

    learning_rate: PositiveFloat = 4e-5
    """Learning rate at the end of the warm-up."""
    final_learning_rate: NonNegativeFloat = 0.0
    """Learning rate at the last step of the schedule, reached along a half cosine."""


class MeshTrainConfig(LRMTrainConfig):
    """Settings of stage 2, in addition to those of both stages."""

    recipe: ClassVar[str] = "mesh"

    data: FrameDataConfig = FrameDataConfig()
    loss: MeshLossConfig = MeshLossConfig()
    optimizer: MeshOptimizerConfig = MeshOptimizerConfig()
    published_threshold: bool = False
    """Start with the surface where the density of stage 1 is 9, as the released code does,
    instead of 10."""

    def model_sizes(self) -> MeshLRMConfig:
        """Return the complete configuration of the model. Raises BadInput."""
        return mesh_preset(self.preset, self.model)

    def new_model(self) -> MeshLRM:
        """Return the model with random weights."""
        return self._with_checkpointing(MeshLRM(self.model_sizes()))

    def check_start(self) -> None:
        """Raise BadInput as in stage 1; warn about a run that starts with random weights."""
        super().check_start()
        # Warn once, in the driver: the workers, which check again, have a process group.
        if self.init is None and not dist.is_initialized():
            _log.warning(
                "stage 2 starts with random weights and is not expected to converge: "
                "give a run of stage 1, --init RUN"
            )


class MeshRecipe:
    """The recipe of stage 2."""

    def __init__(self, config: MeshTrainConfig) -> None:
        self.config = config

    def build(self, *, fresh: bool = True) -> nn.Module:
        """Return the objective with its model, with initial weights if `fresh`."""
        config = self.config
        model = config.new_model()
        if fresh:
            options = {"published_threshold": config.published_threshold}
            load_init(LRM_WEIGHTS, model, config.init, config.out, **options)
        return _Objective(model, config.loss, config.perceptual_distance())

    def dataset(self, root: Storage, samples: Sequence[Sample]) -> FrameDataset:
        """Return input views and whole frames of all views."""
        config = self.config
        size = config.model_sizes().image_size
        return FrameDataset(root, samples, config.data, input_size=size, seed=config.seed)

    def preview_dataset(self, root: Storage, samples: Sequence[Sample]) -> FrameDataset:
        """Return the training dataset."""
        return self.dataset(root, samples)

    def validation_dataset(
        self, root: Storage, samples: Sequence[Sample]
    ) -> Dataset[dict[str, Tensor]]:
        """Return the frames of the training dataset, without augmentation."""
        data = self.config.data.model_copy(update={"augment": NO_AUGMENTATION})
        size = self.config.model_sizes().image_size
        return SingleSampleDataset(
            lambda some: FrameDataset(root, some, data, input_size=size, seed=SEED), samples
        )

    def evaluate(self, module: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the metrics of views that were not input.

        psnr, ssim, mask_iou; lpips if it has a weight in the loss; depth_error, the mean absolute
        error of depth, and normal_angle, the mean angle between normals in degrees, over the pixels
        whose target has depth. A pixel that the mesh misses counts with its full depth and 90
        degrees.
        """
        assert isinstance(module, _Objective)
        views = held_out_views(batch)
        target = {
            name: batch[f"target_{name}"][:, views] for name in ("rgb", "alpha", "depth", "normals")
        }
        planes = module.model.forward_planes(
            batch["images"], batch["camera_to_world"], batch["intrinsics"]
        )
        cameras = batch["target_camera_to_world"][:, views], batch["target_intrinsics"][:, views]
        size = (target["rgb"].shape[-2], target["rgb"].shape[-1])
        predicted, _ = module.model.synthesizer(planes, *cameras, size)
        lpips = module.lpips_on(planes.device)
        metrics = picture_metrics(
            predicted.rgb, predicted.alpha, target["rgb"], target["alpha"], lpips
        )
        mask = target["depth"] > 0
        count = mask.sum().clamp(min=1)
        cosines = (predicted.normals * target["normals"]).sum(dim=-3, keepdim=True).clamp(-1, 1)
        metrics["depth_error"] = ((predicted.depth - target["depth"]).abs() * mask).sum() / count
        metrics["normal_angle"] = torch.rad2deg((cosines.acos() * mask).sum() / count)
        return metrics

    def meta_step(self) -> MetaStep:
        """Return a step on the meta device for the FLOPs and memory estimate.

        It has the input views and frames of a real step, and a sphere instead of the surface.
        """
        config = self.config
        data, side = config.data, config.data.frame_size
        image_size = config.model_sizes().image_size
        with torch.device("meta"):
            lpips = Lpips() if config.loss.lpips else None
            module = _Objective(config.new_model(), config.loss, lpips)
        synthesizer = module.model.synthesizer
        cells, distance = sphere_cells(synthesizer.config), lpips and view_by_view(lpips)

        def step(objects: int) -> Tensor:
            batch = meta_batch(data, objects, image_size, side)
            planes = module.model.forward_planes(
                batch["images"], batch["camera_to_world"], batch["intrinsics"]
            )
            losses = []
            for own, rgb, alpha in zip(
                planes, batch["target_rgb"], batch["target_alpha"], strict=True
            ):
                one = mesh_step_tensors(synthesizer, cells, own, len(rgb), (side, side))
                terms = nerf_loss(one.rgb, one.alpha, rgb, alpha, config.loss, distance)
                losses.append(terms["loss"] + one.regularizers)
            return torch.stack(losses).mean()

        frozen = {"lpips": lpips} if lpips else {}
        return MetaStep(module=module, step=step, frozen=frozen, assumed=ASSUMED)

    def preview(self, module: nn.Module, batch: dict[str, Tensor]) -> Image.Image:
        """Draw the input views, and targets and predictions from the same cameras."""
        assert isinstance(module, _Objective)
        size = (self.config.preview_size, self.config.preview_size)
        views = slice(len(batch["images"][0]))
        planes = module.model.forward_planes(
            batch["images"], batch["camera_to_world"], batch["intrinsics"]
        )
        cameras = batch["target_camera_to_world"][:, views], batch["target_intrinsics"][:, views]
        predicted, _ = module.model.synthesizer(planes, *cameras, size)
        prediction = ObjectViews(
            rgb=predicted.rgb[0],
            alpha=predicted.alpha[0],
            depth=predicted.depth[0],
            normals=predicted.normals[0],
        )
        item = {name: values[0] for name, values in batch.items()}
        target = ObjectViews.of_item(item, views)
        return comparison_picture(item["images"], target, prediction, size)


class _Objective(Objective[MeshLRM, MeshLossConfig]):
    def object_terms(self, planes: Tensor, one: dict[str, Tensor]) -> dict[str, Tensor]:
        cameras = one["target_camera_to_world"], one["target_intrinsics"]
        size = (one["target_rgb"].shape[-2], one["target_rgb"].shape[-1])
        views, geometry = self.model.synthesizer(planes, *cameras, size)
        lpips = self.lpips_on(planes.device)
        terms = mesh_loss(
            views,
            geometry,
            one["target_rgb"],
            one["target_alpha"],
            one["target_depth"],
            one["target_normals"],
            self.loss,
            lpips and view_by_view(lpips),
        )
        # A metric and no part of the loss: it is high if stage 1 was trained for too few steps.
        return terms | {"repaired": geometry.repaired.float().mean()}


def view_by_view(lpips: Distance) -> Distance:
    """Return the same distance, computed view by view with activation checkpointing.

    The activations of one frame of 512 x 512 take half a gigabyte; those of all frames are not
    kept at the same time.
    """

    def distances(images: Tensor, targets: Tensor) -> Tensor:
        distance = recompute_in_backward(lpips)
        return torch.cat(
            [distance(*pair) for pair in zip(images.split(1), targets.split(1), strict=True)]
        )

    return distances
