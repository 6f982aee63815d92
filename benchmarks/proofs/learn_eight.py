"""`tiny` learns eight real objects by heart: the curve of its training views over minutes.

`python -m benchmarks learn_eight --root DATASET --snapshot ID --out DIR` takes the first eight
objects of a snapshot of real renders and trains stage 1 on them by the real engine, without
augmentation. docs/notes/training.md holds a run's curve.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor, nn

from dataset.root import open_root
from dataset.snapshots.snapshot import open_snapshot, write_snapshot
from pipelines.launch.ray_train import train_alone
from train.data.patches import ViewDataset
from train.evaluation.metrics import psnr
from train.loop.validation import NO_AUGMENTATION
from train.models.lrm.lrm import NerfLRM
from train.recipes.nerf import NerfRecipe, NerfTrainConfig


def main() -> None:
    """Freeze the objects, train on them, print the curve."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", required=True, help="a dataset of real renders")
    parser.add_argument("--snapshot", required=True)
    parser.add_argument("--out", type=Path, required=True, help="a new folder for the run")
    parser.add_argument("--objects", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--every", type=int, default=100, help="steps between two measurements")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    args = parser.parse_args()
    root = open_root(args.root)
    samples = open_snapshot(root, args.snapshot).samples[: args.objects]
    frozen = write_snapshot(root, samples, None, protect_days=0)["snapshot"]
    config = NerfTrainConfig.load(
        {
            "root": args.root,
            "snapshot": frozen,
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
    train_alone(_Watched(config))


class _Watched(NerfRecipe):
    """Stage 1, which measures all its training views whenever a preview is due."""

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
        """The usual picture; adds a line to the curve."""
        spent = time.monotonic() - self._started
        model = module.model
        assert isinstance(model, NerfLRM)
        decibels = [self._measure(model, i) for i in range(self._count)]
        row = {
            "minutes": round(spent / 60, 2),
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
        """PSNR of all views that a step may see of an object, whole frames on white, in dB."""
        one: dict[str, Any] = {name: value[None] for name, value in self._objects[position].items()}
        size = one["target_rgb"].shape[-2:]
        planes = model.forward_planes(one["images"], one["camera_to_world"], one["intrinsics"])
        shown = model.render(
            planes, one["target_camera_to_world"], one["target_intrinsics"], tuple(size)
        )
        return float(psnr(shown.rgb.clamp(0, 1), one["target_rgb"]).mean())
