"""Mesh reconstruction with a trained Pixel2Mesh, from one picture and its camera."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.errors import BadInput
from dataset.cameras import Camera
from train.data.surface_views import camera_frame
from train.inference.family import Family, ModelOptions
from train.inference.reconstruction import Reconstruction, Reconstructor, Shape
from train.inference.stored_models import build_model, read_model
from train.models.pixel2mesh.pixel2mesh import PRESETS, Pixel2Mesh, pixel2mesh_preset
from train.models.pixel2mesh.pixel2mesh_weights import PIXEL2MESH_WEIGHTS
from train.models.pixel2mesh.stored_template import load_template
from train.models.pixel2mesh.template_files import read_template

__all__ = ["Pixel2MeshReconstruction", "Pixel2MeshReconstructor", "open_pixel2mesh"]


class Pixel2MeshReconstruction(Reconstruction):
    """The mesh of one object. The model predicts no colours."""

    def __init__(
        self, vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], camera: Camera
    ) -> None:
        """Store a mesh of the camera's scaled frame (`train.data.surface_views.camera_frame`)."""
        self._rotation, self._eye, scale = camera_frame(camera)
        self._vertices, self._faces, self.scale = vertices, faces, float(scale)

    @property
    def shape(self) -> Shape:
        """The mesh in world axes, wound so that its volume is positive.

        Models of published weights predict positions, and no loss tells a mesh from its mirror
        image, so they may turn the template inside out. Raises BadInput for values that are no
        mesh.
        """
        if not np.isfinite(self._vertices).all():
            raise BadInput(
                "no mesh: the model predicts vertices that are not finite; use an earlier "
                "checkpoint of its run"
            )
        vertices = self._vertices @ self._rotation.T / np.float32(self.scale) + self._eye
        a, b, c = vertices[self._faces].astype(np.float64).swapaxes(0, 1)
        is_inside_out = (np.cross(a, b) * c).sum() < 0
        return Shape(vertices=vertices, faces=self._faces[:, :: -1 if is_inside_out else 1])


class Pixel2MeshReconstructor(Reconstructor):
    """A model in eval mode."""

    def __init__(self, family: Family, model: Pixel2Mesh) -> None:
        super().__init__(family, model.config.image_size)
        self._model = model

    @torch.no_grad()
    def reconstruct(
        self,
        images: Float[Tensor, "1 1 3 s s"],
        camera_to_world: Float[Tensor, "1 1 4 4"],
        intrinsics: Float[Tensor, "1 1 4"],
    ) -> Pixel2MeshReconstruction:
        """Reconstruct an object from one picture (RGB in [0, 1] on white) with its camera."""
        device = self._model.init_pts.device
        meshes = self._model(images[0].to(device), intrinsics[0].to(device)).meshes
        camera = Camera(
            camera_to_world=camera_to_world[0, 0].numpy(), intrinsics=intrinsics[0, 0].numpy()
        )
        faces = self._model.levels[-1].faces
        return Pixel2MeshReconstruction(
            meshes[-1][0].float().cpu().numpy(), torch.as_tensor(faces).cpu().numpy(), camera
        )

    def to(self, device: torch.device) -> "Pixel2MeshReconstructor":
        """Move the model to a device, and return it."""
        self._model.to(device)
        return self


def open_pixel2mesh(family: Family, source: Path, options: ModelOptions) -> Pixel2MeshReconstructor:
    """Open a model; see `train.inference.families.open_model`.

    A run has stored its template. For a weight file of another template it is `options.template`.
    """
    stored = read_model(family, source, options, PIXEL2MESH_WEIGHTS)
    template = None
    if options.template is not None:
        template = read_template(options.template)
    elif stored.settings.get("template") is not None:
        template = load_template(stored.settings["template"])
    model, _ = build_model(
        stored,
        PRESETS,
        PIXEL2MESH_WEIGHTS,
        sizes=pixel2mesh_preset,
        new=lambda sizes: Pixel2Mesh(sizes, template),
    )
    return Pixel2MeshReconstructor(family, model)
