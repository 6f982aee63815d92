"""Overfit the preset `tiny` on eight real objects, and print PSNR over time.

`python -m benchmarks learn_eight --root DATASET --snapshot ID --out DIR` takes the first eight
objects of a snapshot and trains stage 1 on them with the training engine, without augmentation. It
prints one JSON object per measurement, and appends it to curve.jsonl: minutes, CPU minutes, and
mean, lowest and highest PSNR of the objects' training views in dB. docs/notes/training.md shows the
curve of a run.
"""

import json
import time
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor, nn

from benchmarks.help_text import benchmark_parser
from dataset.root import open_root
from dataset.snapshots.snapshot import open_snapshot, write_snapshot
from pipelines.launch.ray_train import train_alone
from train.data.patches import ViewDataset
from train.evaluation.metrics import psnr
from train.loop.validation import NO_AUGMENTATION
from train.models.lrm.lrm import NerfLRM
from train.recipes.nerf import NerfRecipe, NerfTrainConfig


def main() -> None:
    """Create a snapshot of the objects, train on it, and print the curve."""
    parser = benchmark_parser(__doc__)
    add = parser.add_argument
    add("--root", required=True, help="folder or URI of a dataset of real renders")
    add("--snapshot", required=True, metavar="ID", help="snapshot in that dataset")
    add("--out", type=Path, required=True, metavar="DIR", help="new run folder")
    add("--objects", type=int, default=8, help="number of objects")
    add("--batch-size", type=int, default=4, help="objects per step")
    add("--steps", type=int, default=1500, help="training steps")
    add("--every", type=int, default=100, help="steps between two measurements")
    add("--learning-rate", type=float, default=2e-3, help="first learning rate")
    args = parser.parse_args()
    root = open_root(args.root)
    samples = open_snapshot(root, args.snapshot).samples[: args.objects]
    snapshot = write_snapshot(root, samples, None, protect_days=0)["snapshot"]
    config = NerfTrainConfig.load(
        {
            "root": args.root,
            "snapshot": snapshot,
            "out": str(args.out),
            "preset": "tiny",
            "steps": args.steps,
            "batch_size": args.batch_size,
            "checkpoint_every": args.steps,
            "preview_every": args.every,
            "loss": {"lpips": 0},
            "optimizer": {
                "learning_rate": args.learning_rate,
                "final_learning_rate": args.learning_rate / 20,
                "warmup_steps": 50,
            },
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
        self._started = time.monotonic()
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
        seconds = time.monotonic() - self._started
        model = module.model
        assert isinstance(model, NerfLRM)
        decibels = [self._measure(model, i) for i in range(self._count)]
        row = {
            "minutes": round(seconds / 60, 2),
            "cpu_minutes": round(time.process_time() / 60, 2),
            "psnr": round(sum(decibels) / len(decibels), 2),
            "least": round(min(decibels), 2),
            "most": round(max(decibels), 2),
        }
        print(json.dumps(row), flush=True)
        with open(Path(self.config.out) / "curve.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")
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
