"""Training of Pixel2Mesh (Wang et al., ECCV 2018): from one picture to a mesh."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from PIL import Image
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.utils.data import Dataset

from core.config import NonNegativeFloat, PositiveFloat
from core.storage import Storage
from dataset.snapshots.snapshot import Sample
from train.checkpoints.initial_weights import absolute_source, check_source, load_init
from train.data.surface_views import SurfaceDataConfig, SurfaceViewDataset
from train.estimate.step_cost import MetaStep
from train.evaluation.camera_scores import score_camera_mesh
from train.loop.validation import SEED, SingleSampleDataset
from train.models.pixel2mesh.deformation_losses import DeformationLossConfig, deformation_loss
from train.models.pixel2mesh.feature_pooling import MIN_DEPTH
from train.models.pixel2mesh.mesh_health import (
    behind_share,
    face_pairs,
    folded_share,
    relative_extent,
    relative_movement,
)
from train.models.pixel2mesh.pixel2mesh import Pixel2Mesh, Pixel2MeshConfig, pixel2mesh_preset
from train.models.pixel2mesh.pixel2mesh_weights import PIXEL2MESH_WEIGHTS
from train.models.pixel2mesh.stored_template import dump_template, load_template
from train.models.pixel2mesh.template_files import read_template
from train.models.pixel2mesh.template_mesh import MeshLevel
from train.recipes.pixel2mesh_preview import mesh_picture
from train.settings.train_config import Decay, OptimizerConfig, TrainConfig

__all__ = ["Pixel2MeshRecipe", "Pixel2MeshTrainConfig"]

_FIRST_EVALUATED = 100
"""First step whose metrics are examined: the first steps of a schedule change little."""
_MIN_EXTENT = 0.1
"""Smallest size of the predicted meshes, relative to the true one, that is no collapse."""
_MAX_BEHIND = 0.01
"""Largest share of vertices behind the camera."""
_MIN_EFFECT = 1e-3
"""Smallest effect of the picture, relative to the true size. New models of the presets exceed it
after a step."""
_REMEDY = (
    "look at the previews, and start again from an earlier checkpoint (delete the later ones) or "
    "from published weights (--init), with a lower --optimizer.learning-rate"
)


class Pixel2MeshOptimizerConfig(OptimizerConfig):
    """AdamW and its learning-rate schedule.

    The published training uses Adam at 1e-4, times 0.3 after 27, 64 and 82 % of the steps, which
    ends at 2.7e-6, with the weight decay in the gradient.
    """

    learning_rate: PositiveFloat = 1e-4
    """Learning rate at the end of the warm-up."""
    final_learning_rate: NonNegativeFloat = 3e-6
    """Learning rate at the last step of the schedule, reached along a half cosine."""
    beta2: Decay = 0.999
    """AdamW's decay of the second moment."""
    weight_decay: NonNegativeFloat = 1e-6
    """Weight decay of matrices; biases and norms have none."""


class Pixel2MeshTrainConfig(TrainConfig):
    """Settings of Pixel2Mesh, in addition to those of every run."""

    recipe: ClassVar[str] = "pixel2mesh"
    needs_geometry: ClassVar[bool] = True
    # A checkpoint has the vertices of its template; the edges would be those of another.
    fixed: ClassVar[frozenset[str]] = frozenset({"template"})

    preset: str = "vgg"
    """Size of the model: vgg (the released 18-layer image network), resnet (ResNet-50, the best
    published scores) or tiny (for a CPU)."""
    model: dict[str, Any] = Field(default_factory=dict)
    """Settings of the model that differ from the preset, such as {hidden: 192}."""
    template: dict[str, Any] | None = None
    """File of the mesh to deform: an .obj, or the info_ellipsoid.dat of the TensorFlow code, which
    published weights need. The run records its content. By default an ellipsoid of our own."""
    init: str | None = None
    """Initial weights: pixel2mesh:FILE (published), resnet50:FILE (image network only), the folder
    of a run or of one of its checkpoints, or a file that `lrm weights` wrote. By default random."""
    data: SurfaceDataConfig = SurfaceDataConfig()
    loss: DeformationLossConfig = DeformationLossConfig()
    optimizer: Pixel2MeshOptimizerConfig = Pixel2MeshOptimizerConfig()

    @field_validator("init")
    @classmethod
    def _absolute(cls, source: str | None) -> str | None:
        # Workers have other working directories.
        return None if source is None else absolute_source(PIXEL2MESH_WEIGHTS, source)

    @field_validator("template", mode="before")
    @classmethod
    def _of_file(cls, given: Any) -> Any:
        # Workers have other working directories, and a checkpoint is complete without the file.
        return dump_template(read_template(Path(given))) if isinstance(given, str) else given

    def model_sizes(self) -> Pixel2MeshConfig:
        """Return the complete configuration of the model. Raises BadInput."""
        return pixel2mesh_preset(self.preset, self.model)

    def new_model(self) -> Pixel2Mesh:
        """Return the model with random weights. Raises BadInput."""
        template = None if self.template is None else load_template(self.template)
        model = Pixel2Mesh(self.model_sizes(), template)
        if self.activation_checkpointing:
            model.recompute_layers()
        return model

    def check(self) -> None:
        """Raise BadInput if the settings do not fit each other."""
        super().check()
        self.model_sizes()
        if self.template is not None:
            load_template(self.template)

    def check_start(self) -> None:
        """Raise BadInput if `init` does not fit the model."""
        if self.init is not None:
            with torch.device("meta"):
                model = self.new_model()
            check_source(PIXEL2MESH_WEIGHTS, model, self.model_sizes(), self.init)


class Pixel2MeshRecipe:
    """The recipe of Pixel2Mesh."""

    def __init__(self, config: Pixel2MeshTrainConfig) -> None:
        self.config = config

    def build(self, *, fresh: bool = True) -> nn.Module:
        """Return the objective with its model, with initial weights if `fresh`."""
        config = self.config
        model = config.new_model()
        if fresh:
            load_init(PIXEL2MESH_WEIGHTS, model, config.init, config.out)
        return _Objective(model, config.loss)

    def dataset(self, root: Storage, samples: Sequence[Sample]) -> SurfaceViewDataset:
        """Return one view of each object with points and normals of its surface."""
        config = self.config
        return self._views(root, samples, config.data, config.seed)

    def preview_dataset(self, root: Storage, samples: Sequence[Sample]) -> SurfaceViewDataset:
        """Return the training dataset."""
        return self.dataset(root, samples)

    def validation_dataset(
        self, root: Storage, samples: Sequence[Sample]
    ) -> Dataset[dict[str, Tensor]]:
        """Return one fixed view of each object, not flipped."""
        data = self.config.data.model_copy(update={"flip": 0.0})
        return SingleSampleDataset(lambda some: self._views(root, some, data, SEED), samples)

    def _views(
        self, root: Storage, samples: Sequence[Sample], data: SurfaceDataConfig, seed: int
    ) -> SurfaceViewDataset:
        size = self.config.model_sizes().image_size
        return SurfaceViewDataset(root, samples, data, image_size=size, seed=seed)

    def evaluate(self, module: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the scores of the final mesh against the true points, and signs of a collapse.

        chamfer, chamfer_squared, f_score_1e-4 and f_score_2e-4 are those of
        `train.evaluation.camera_scores`. extent is the mesh's size relative to the true one;
        picture_effect is the mean distance that the vertices move if the picture is blank, relative
        to the true size: 0 if the model ignores its picture.
        """
        assert isinstance(module, _Objective)
        model, intrinsics, points = module.model, batch["intrinsics"], batch["points"]
        vertices = model(batch["images"], intrinsics).meshes[-1].float()
        blank = model(torch.ones_like(batch["images"]), intrinsics).meshes[-1].float()
        scale = float(batch["scale"])
        return {
            **score_camera_mesh(vertices[0], module.faces, points[0], scale, SEED),
            "extent": relative_extent(vertices, points).mean(),
            "picture_effect": relative_movement(blank, vertices, points).mean(),
        }

    def find_problem(self, step: int, metrics: Mapping[str, float]) -> str:
        """Return what is wrong by the metrics of a step or validation; '' if nothing is."""
        if step < _FIRST_EVALUATED:
            return ""
        if metrics.get("extent", 1.0) < _MIN_EXTENT:
            return (
                f"the predicted meshes have {metrics['extent']:.1%} of the size of the true ones: "
                f"the model has collapsed; {_REMEDY}"
            )
        if metrics.get("behind", 0.0) > _MAX_BEHIND:
            return f"{metrics['behind']:.1%} of the vertices are behind the camera; {_REMEDY}"
        if metrics.get("picture_effect", 1.0) < _MIN_EFFECT:
            return f"the predicted mesh does not depend on the picture; {_REMEDY}"
        return ""

    def meta_step(self) -> MetaStep:
        """Return a step on the meta device for the FLOPs and memory estimate."""
        config = self.config
        with torch.device("meta"):
            module = _Objective(config.new_model(), config.loss)
        size, count = config.model_sizes().image_size, config.data.num_points
        shapes = {"images": (3, size, size), "intrinsics": (4,)}
        shapes |= {"points": (count, 3), "normals": (count, 3)}

        def step(objects: int) -> Tensor:
            batch = {
                name: torch.empty(objects, *shape, device="meta") for name, shape in shapes.items()
            }
            return module(batch)["loss"]

        return MetaStep(module=module, step=step)

    def preview(self, module: nn.Module, batch: dict[str, Tensor]) -> Image.Image:
        """Draw the picture, the mesh over it and from the side, and the true surface."""
        assert isinstance(module, _Objective)
        meshes = module.model(batch["images"], batch["intrinsics"]).meshes
        return mesh_picture(
            batch["images"][0],
            batch["intrinsics"][0],
            meshes[-1][0],
            module.faces,
            batch["points"][0],
            batch["normals"][0],
            self.config.preview_size,
        )


class _Objective(nn.Module):
    """Module of the model and its loss, whose forward pass returns the loss terms."""

    _pairs: Tensor | None

    def __init__(self, model: Pixel2Mesh, loss: DeformationLossConfig) -> None:
        super().__init__()
        self.model, self.loss = model, loss
        pairs = None if self.faces.is_meta else face_pairs(self.faces)
        self.register_buffer("_pairs", pairs, persistent=False)

    @property
    def faces(self) -> Tensor:
        """The faces of the final mesh."""
        return cast("MeshLevel", self.model.levels[-1]).faces

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss terms of a batch: means over its objects."""
        deformation = self.model(batch["images"], batch["intrinsics"])
        points, levels = batch["points"], cast("list[MeshLevel]", list(self.model.levels))
        terms = deformation_loss(deformation, levels, points, batch["normals"], self.loss)
        if self._pairs is None:
            return terms
        with torch.no_grad():
            vertices = deformation.meshes[-1]
            health = {
                "extent": relative_extent(vertices, points),
                "behind": behind_share(vertices, MIN_DEPTH),
                "folded": folded_share(vertices, self.faces, self._pairs),
            }
        return terms | {name: values.mean() for name, values in health.items()}
