"""Overfit Pixel2Mesh on eight real objects, and print the distance over time.

`python -m benchmarks fit_pixel2mesh --root DATASET --snapshot ID --out DIR` takes the first eight
objects of a snapshot, which needs a build with `--geometry`, and trains the preset `tiny` on them
with the training engine, without augmentation. It prints one JSON object per measurement, and
appends it to curve.jsonl: minutes, CPU minutes, and mean, least and most of the objects' Chamfer
distances over training views. That is half the sum of the mean Euclidean distances in both
directions between 16,000 points on each surface, in world units: the object is in [-1, 1]^3. At the
end, it writes objects.webp: two columns per object, from the input camera and from the side, with
input, mesh, and the normals of the true surface and of the mesh. docs/notes/pixel2mesh.md shows the
result of a run.
"""

from statistics import mean

from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from benchmarks.proofs.overfitting import Curve, overfit_parser, overfit_settings
from dataset.root import open_root
from dataset.snapshots.snapshot import open_snapshot
from pipelines.launch.ray_train import train_alone
from train.data.order import sample_at
from train.evaluation.camera_scores import score_camera_mesh
from train.evaluation.protocols.registry import NUM_POINTS
from train.models.pixel2mesh.pixel2mesh import Pixel2Mesh
from train.recipes.pixel2mesh import Pixel2MeshRecipe, Pixel2MeshTrainConfig
from train.recipes.pixel2mesh_preview import mesh_picture

__all__ = ["main"]

_VIEWS = 4
"""Training views of each object that are measured."""
_SIDE = 128
"""Width and height of a picture in objects.webp in pixels."""
_COLUMNS = 4
"""Objects beside each other in objects.webp."""


def main() -> None:
    """Create a snapshot of the objects, train on it, and print the curve."""
    parser = overfit_parser(__doc__, batch_size=8, steps=4500, learning_rate=1e-3)
    options = parser.parse_args()
    config = Pixel2MeshTrainConfig.load(
        overfit_settings(options) | {"preset": "tiny", "data": {"num_points": 2000, "flip": 0}}
    )
    recipe = _MeasuredRecipe(config)
    train_alone(recipe)
    recipe.objects.save(options.out / "objects.webp", quality=90)


class _MeasuredRecipe(Pixel2MeshRecipe):
    """The recipe, which measures training views of all objects whenever a preview is due."""

    objects: Image.Image
    """All objects at the last measurement."""

    def __init__(self, config: Pixel2MeshTrainConfig) -> None:
        super().__init__(config)
        self._curve = Curve(config.out, "chamfer", 4)
        root = open_root(config.root)
        samples = open_snapshot(root, config.snapshot).samples
        # A perfect mesh has a distance of 0.036 with 2,000 points, and of 0.014 with these.
        data = config.data.model_copy(update={"num_points": NUM_POINTS})
        measured = Pixel2MeshRecipe(config.model_copy(update={"data": data}))
        views, count = measured.dataset(root, samples), len(samples)
        # An epoch of the order has each object once, with a view of its own.
        self._items: list[list[dict[str, Tensor]]] = [[] for _ in samples]
        for position in range(_VIEWS * count):
            self._items[sample_at(position, count, config.seed)].append(views[position])

    def preview(self, module: nn.Module, batch: dict[str, Tensor]) -> Image.Image:
        """Measure all objects, append a line to the curve, and return the usual preview."""
        model = module.model
        assert isinstance(model, Pixel2Mesh)
        self._curve.append(
            [mean(self._distance(model, item) for item in items) for items in self._items]
        )
        self.objects = _sheet([self._picture(model, items[0]) for items in self._items])
        return super().preview(module, batch)

    def _distance(self, model: Pixel2Mesh, item: dict[str, Tensor]) -> float:
        """Return the Chamfer distance of an object in a view, in world units."""
        scores = score_camera_mesh(
            _vertices(model, item),
            model.levels[-1].get_buffer("faces"),
            item["points"],
            float(item["scale"]),
            seed=0,
        )
        return float(scores["chamfer"])

    def _picture(self, model: Pixel2Mesh, item: dict[str, Tensor]) -> Image.Image:
        return mesh_picture(
            item["images"],
            item["intrinsics"],
            _vertices(model, item),
            model.levels[-1].get_buffer("faces"),
            item["points"],
            item["normals"],
            _SIDE,
        )


def _vertices(model: Pixel2Mesh, item: dict[str, Tensor]) -> Float[Tensor, "v 3"]:
    device = model.init_pts.device
    inputs = (item[name][None].to(device) for name in ("images", "intrinsics"))
    return model(*inputs).meshes[-1][0]


def _sheet(pictures: list[Image.Image]) -> Image.Image:
    """Return pictures of equal size in rows of _COLUMNS."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * width, rows * height), "white")
    for number, picture in enumerate(pictures):
        row, column = divmod(number, _COLUMNS)
        sheet.paste(picture, (column * width, row * height))
    return sheet
