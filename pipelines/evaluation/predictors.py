"""The predictions that are evaluated: mesh files, a model's shapes, or generated views."""

from collections.abc import Sequence
from typing import Any, Protocol

from core.errors import BadInput
from pipelines.evaluation.evaluate_meshes import MeshFolder, surface_cloud
from pipelines.evaluation.ground_truths import GroundTruth
from render.render_config import RENDERER_VERSION
from train.evaluation.predict import Generate, Prediction, generate_views, predict
from train.evaluation.scores import Pictures
from train.inference.reconstruction import Reconstructor

__all__ = ["MeshPredictor", "ModelPredictor", "MultiviewPredictor", "Predictor"]


class Predictor(Protocol):
    """The predictions that are evaluated."""

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return the objects without a prediction."""

    def identity(self, name: str) -> Any:
        """Return what determines an object's prediction, besides the ground truth."""

    def predict(self, truth: GroundTruth) -> Prediction:
        """Return the prediction of an object. Raises LrmError."""


class MeshPredictor:
    """Predictions from a folder of mesh files, with pictures of them on request."""

    def __init__(self, meshes: MeshFolder, num_points: int, seed: int, *, pictures: bool) -> None:
        self._meshes, self._num_points, self._seed = meshes, num_points, seed
        self._pictures = pictures

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return the objects without a mesh. Raises BadInput if no object has one."""
        missing = [name for name in names if name not in self._meshes]
        if len(missing) == len(names):
            raise BadInput(
                "no mesh has the name of an object: the meshes are called "
                f"{self._meshes.names[0]}, ..., the objects {names[0]}, ..."
            )
        return missing

    def identity(self, name: str) -> Any:
        """Return the fingerprint of the mesh file and the settings of its render."""
        return [self._meshes.fingerprint(name), RENDERER_VERSION, self._seed]

    def predict(self, truth: GroundTruth) -> Prediction:
        """Normalise, render and sample the mesh in the same way as the ground truth.

        Pictures show the normalised mesh. Points are where the file has them, in the ground truth's
        world.
        """
        cameras = truth.cameras if self._pictures else []
        sizes = (truth.pictures.rgb.shape[-1], self._num_points, self._seed)
        rendered = self._meshes.render(truth.name, cameras, truth.normalise, *sizes)
        cloud = surface_cloud(rendered.surface, self._num_points)
        return Prediction(
            views=list(range(len(cameras))),
            pictures=Pictures.from_rgba(rendered.views.rgba) if self._pictures else None,
            cloud=rendered.placement.moved_to(truth.placement, cloud),
        )


class ModelPredictor:
    """Predictions of a trained model, from true views or from six views generated from view 0."""

    def __init__(
        self,
        model: Reconstructor,
        num_points: int,
        seed: int,
        generate: Generate | None,
        identity: Any,
        *,
        pictures: bool = True,
    ) -> None:
        """Store the model; `identity` describes its weights and settings as plain values.

        With `generate`, the model sees six views that are generated from the object's view 0.
        Without `pictures`, its shape alone is predicted.
        """
        self._model, self._generate, self._identity = model, generate, identity
        self._num_points, self._seed, self._pictures = num_points, seed, pictures

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return an empty list: a model predicts every object."""
        return []

    def identity(self, name: str) -> Any:
        """Return the identity of the model, which is the same for all objects."""
        return self._identity

    def predict(self, truth: GroundTruth) -> Prediction:
        """Return the model's prediction (`train.evaluation.predict`)."""
        return predict(
            self._model,
            truth.pictures,
            truth.cameras,
            num_points=self._num_points,
            seed=self._seed,
            generate=self._generate,
            pictures=self._pictures,
        )


class MultiviewPredictor:
    """Predictions of Zero123++: six views generated from view 0."""

    def __init__(self, generate: Generate, identity: Any) -> None:
        """Store the pipeline; `identity` describes its weights and settings as plain values."""
        self._generate, self._identity = generate, identity

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return an empty list: Zero123++ generates views for every picture."""
        return []

    def identity(self, name: str) -> Any:
        """Return the identity of the pipeline, which is the same for all objects."""
        return self._identity

    def predict(self, truth: GroundTruth) -> Prediction:
        """Return the generated views (`train.evaluation.predict.generate_views`)."""
        return generate_views(truth.pictures, truth.cameras, self._generate)
