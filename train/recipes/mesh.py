"""LRM stage 2: the triplanes of stage 1 learn to be a mesh (InstantMesh, eq. 4)."""

import logging
from collections.abc import Sequence

import torch
import torch.distributed as dist
from PIL import Image
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from torch.utils.data import Dataset

from core.storage import Storage
from dataset.snapshots.snapshot import Sample
from train.data.whole_frames import FrameDataConfig, FrameDataset
from train.estimate.mesh_outline import ASSUMED, sphere_cells, stand_in
from train.estimate.outline import Outline
from train.evaluation.metrics import picture_metrics
from train.loop.validation import SEED, STILL, EachAlone, held_out
from train.models.lpips import Lpips
from train.models.lrm.losses import Distance, MeshLossConfig, mesh_loss, nerf_loss
from train.models.lrm.lrm import MeshLRM, MeshLRMConfig, mesh_preset
from train.models.recompute import recomputed
from train.recipes.lrm_preview import Shown, compare
from train.recipes.lrm_stages import LRMTrainConfig, Objective, load_init, meta_batch
from train.settings.train_config import OptimizerConfig

__all__ = ["MeshRecipe", "MeshTrainConfig", "view_by_view"]

_log = logging.getLogger(__name__)


class MeshOptimizerConfig(OptimizerConfig):
    """AdamW and its schedule; the defaults are those of stage 2 as published."""

    learning_rate: PositiveFloat = 4e-5
    """At the end of the warm-up."""
    final_learning_rate: NonNegativeFloat = 0.0
    """At the last step of the schedule; between the two lies a half cosine."""


class MeshTrainConfig(LRMTrainConfig):
    """What stage 2 adds to every run."""

    data: FrameDataConfig = FrameDataConfig()
    loss: MeshLossConfig = MeshLossConfig()
    optimizer: MeshOptimizerConfig = MeshOptimizerConfig()
    published_threshold: bool = False
    """Put the first surface where stage 1's density is 9 instead of 10, as released."""

    def model_sizes(self) -> MeshLRMConfig:
        """The whole configuration of the model. Raises BadInput."""
        return mesh_preset(self.preset, self.model)

    def new_model(self) -> MeshLRM:
        """The model with fresh weights."""
        return self._recomputing(MeshLRM(self.model_sizes()))

    def check_start(self) -> None:
        """Raise BadInput as stage 1 does; warn of a start that is not known to lead anywhere."""
        super().check_start()
        # Once: the workers, which check again, are a process group.
        if self.init is None and not dist.is_initialized():
            _log.warning(
                "stage 2 starts from nothing and is not expected to converge: "
                "give a run of stage 1, --init RUN"
            )


class MeshRecipe:
    """Builds and shows stage 2."""

    def __init__(self, config: MeshTrainConfig) -> None:
        self.config = config

    def build(self, *, fresh: bool = True) -> nn.Module:
        """The model inside its objective."""
        config = self.config
        model = config.new_model()
        if fresh:
            load_init(config, model, published_threshold=config.published_threshold)
        return _Objective(model, config.loss, config.measure())

    def dataset(self, root: Storage, samples: Sequence[Sample]) -> FrameDataset:
        """Return input views and whole frames of all views."""
        config = self.config
        size = config.model_sizes().image_size
        return FrameDataset(root, samples, config.data, input_size=size, seed=config.seed)

    def preview_dataset(self, root: Storage, samples: Sequence[Sample]) -> FrameDataset:
        """Return what the training sees."""
        return self.dataset(root, samples)

    def validation_dataset(
        self, root: Storage, samples: Sequence[Sample]
    ) -> Dataset[dict[str, Tensor]]:
        """The frames that training sees, without augmentation."""
        data = self.config.data.model_copy(update={"augment": STILL})
        size = self.config.model_sizes().image_size
        return EachAlone(
            lambda some: FrameDataset(root, some, data, input_size=size, seed=SEED), samples
        )

    def evaluate(self, module: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """psnr, ssim, mask_iou, and lpips if the loss has it, of views that were not input; where
        their target has depth, its mean absolute error, and the mean angle between normals in
        degrees. A place that the mesh misses counts with its whole depth and 90 degrees."""
        assert isinstance(module, _Objective)
        views = held_out(batch)
        target = {
            name: batch[f"target_{name}"][:, views] for name in ("rgb", "alpha", "depth", "normals")
        }
        planes = module.model.forward_planes(
            batch["images"], batch["camera_to_world"], batch["intrinsics"]
        )
        cameras = batch["target_camera_to_world"][:, views], batch["target_intrinsics"][:, views]
        size = (target["rgb"].shape[-2], target["rgb"].shape[-1])
        shown, _ = module.model.synthesizer(planes, *cameras, size)
        lpips = module.lpips_on(planes.device)
        found = picture_metrics(shown.rgb, shown.alpha, target["rgb"], target["alpha"], lpips)
        seen = target["depth"] > 0
        count = seen.sum().clamp(min=1)
        cosines = (shown.normals * target["normals"]).sum(dim=-3, keepdim=True).clamp(-1, 1)
        found["depth_error"] = ((shown.depth - target["depth"]).abs() * seen).sum() / count
        found["normal_angle"] = torch.rad2deg((cosines.acos() * seen).sum() / count)
        return found

    def outline(self) -> Outline:
        """Input views and frames as a step sees them, around a stand-in for the surface."""
        config = self.config
        data, side = config.data, config.data.frame_size
        image_size = config.model_sizes().image_size
        with torch.device("meta"):
            lpips = Lpips() if config.loss.lpips else None
            module = _Objective(config.new_model(), config.loss, lpips)
        synthesizer = module.model.synthesizer
        cells, measure = sphere_cells(synthesizer.config), lpips and view_by_view(lpips)

        def step(objects: int) -> Tensor:
            batch = meta_batch(data, objects, image_size, side)
            planes = module.model.forward_planes(
                batch["images"], batch["camera_to_world"], batch["intrinsics"]
            )
            losses = []
            for own, rgb, alpha in zip(
                planes, batch["target_rgb"], batch["target_alpha"], strict=True
            ):
                one = stand_in(synthesizer, cells, own, len(rgb), (side, side))
                terms = nerf_loss(one.rgb, one.alpha, rgb, alpha, config.loss, measure)
                losses.append(terms["loss"] + one.regularizers)
            return torch.stack(losses).mean()

        frozen = {"lpips": lpips} if lpips else {}
        return Outline(module=module, step=step, frozen=frozen, assumed=ASSUMED)

    def preview(self, module: nn.Module, batch: dict[str, Tensor]) -> Image.Image:
        """Rows of pictures: the input views, and targets and predictions from the same cameras."""
        assert isinstance(module, _Objective)
        size = (self.config.preview_size, self.config.preview_size)
        views = slice(len(batch["images"][0]))
        planes = module.model.forward_planes(
            batch["images"], batch["camera_to_world"], batch["intrinsics"]
        )
        cameras = batch["target_camera_to_world"][:, views], batch["target_intrinsics"][:, views]
        shown, _ = module.model.synthesizer(planes, *cameras, size)
        model = Shown(
            rgb=shown.rgb[0], alpha=shown.alpha[0], depth=shown.depth[0], normals=shown.normals[0]
        )
        item = {name: values[0] for name, values in batch.items()}
        return compare(item["images"], Shown.of_item(item, views), model, size)


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
        # No part of the loss: what a start from too little of stage 1 shows in the metrics.
        return terms | {"repaired": geometry.repaired.float().mean()}


def view_by_view(lpips: Distance) -> Distance:
    """The same distance, of which the backward pass computes each view again.

    Half a gigabyte of activations for a frame of 512 x 512: ten of them need not be kept.
    """

    def distances(images: Tensor, targets: Tensor) -> Tensor:
        measure = recomputed(lpips)
        return torch.cat(
            [measure(*pair) for pair in zip(images.split(1), targets.split(1), strict=True)]
        )

    return distances
