"""Overfit the preset `tiny` on eight real objects, and print PSNR over time.

`python -m benchmarks learn_eight --root DATASET --snapshot ID --out DIR` takes the first eight
objects of a snapshot and trains stage 1 on them with the training engine, without augmentation. It
prints one JSON object per measurement, and appends it to curve.jsonl: minutes, CPU minutes, and
mean, least and most PSNR of the objects' training views in dB. docs/notes/training.md shows the
curve of a run.
"""

from typing import Any

from PIL import Image
from torch import Tensor, nn

from benchmarks.proofs.overfitting import Curve, overfit_parser, overfit_settings
from dataset.root import open_root
from dataset.snapshots.snapshot import open_snapshot
from pipelines.launch.ray_train import train_alone
from train.data.patches import ViewDataset
from train.evaluation.metrics import psnr
from train.loop.validation import NO_AUGMENTATION
from train.models.lrm.lrm import NerfLRM
from train.recipes.nerf import NerfRecipe, NerfTrainConfig


def main() -> None:
    """Create a snapshot of the objects, train on it, and print the curve."""
    parser = overfit_parser(__doc__, batch_size=4, steps=1500, learning_rate=2e-3)
    config = NerfTrainConfig.load(
        overfit_settings(parser.parse_args())
        | {
            "preset": "tiny",
            "loss": {"lpips": 0},
            "data": {
                "num_inputs": 4,
                "num_targets": 2,
                "patch_size": 32,
                "target_size_min": 48,
                "target_size_max": 64,
                "augment": NO_AUGMENTATION.dump(),
            },
        }
    )
    train_alone(_MeasuredRecipe(config))


class _MeasuredRecipe(NerfRecipe):
    """The recipe `nerf`, which measures all its training views whenever a preview is due."""

    def __init__(self, config: NerfTrainConfig) -> None:
        super().__init__(config)
        self._curve = Curve(config.out, "psnr", 2)
        root = open_root(config.root)
        side = config.data.target_size_max
        whole = {"patch_size": side, "target_size_min": side, "target_size_max": side}
        samples = open_snapshot(root, config.snapshot).samples
        self._count = len(samples)
        self._objects = ViewDataset(
            root,
            samples,
            config.data.model_copy(update=whole),
            input_size=config.model_sizes().image_size,
            seed=config.seed,
        )

    def preview(self, module: nn.Module, batch: dict[str, Tensor]) -> Image.Image:
        """Measure all objects, append a line to the curve, and return the usual preview."""
        model = module.model
        assert isinstance(model, NerfLRM)
        self._curve.append([self._measure(model, i) for i in range(self._count)])
        return super().preview(module, batch)

    def _measure(self, model: NerfLRM, position: int) -> float:
        """Return the mean PSNR in dB of the target views of a position, whole frames on white."""
        batch: dict[str, Any] = {
            name: value[None] for name, value in self._objects[position].items()
        }
        size = batch["target_rgb"].shape[-2:]
        planes = model.forward_planes(
            batch["images"], batch["camera_to_world"], batch["intrinsics"]
        )
        rendered = model.render(
            planes, batch["target_camera_to_world"], batch["target_intrinsics"], tuple(size)
        )
        return float(psnr(rendered.rgb.clamp(0, 1), batch["target_rgb"]).mean())
