"""Views sampled from a run of zero123plus: their measures, and an image beside the targets."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from core.storage import Storage
from dataset.snapshots.snapshot import Sample
from train.checkpoints.checkpoint import find_checkpoint
from train.evaluation.background import background_deviation, background_mask, background_spread
from train.evaluation.metrics import psnr
from train.recipes.zero123plus import Zero123PlusRecipe
from train.recipes.zero123plus_config import Zero123PlusTrainConfig
from train.recipes.zero123plus_export import write_pipeline

__all__ = ["show_fit"]


def show_fit(
    run: Path, root: Storage, samples: Sequence[Sample], picture: Path
) -> dict[str, float]:
    """Export the run as `lrm weights --ema` does, load it, and sample the views of every object.

    Write an image of queries, targets and views to `picture`; return means over the objects.
    """
    checkpoint = find_checkpoint(run)
    exported = run / "exported"
    write_pipeline(checkpoint, checkpoint.weights(), exported, ema=True)
    values = {**checkpoint.manifest.config, "init": str(exported)}
    config = Zero123PlusTrainConfig.load(values)
    recipe = Zero123PlusRecipe(config)
    measures: dict[str, list[float]] = {}
    rows = []
    items = recipe.validation_dataset(root, samples)
    for index in range(len(samples)):
        item = default_collate([items[index]])
        with torch.no_grad():
            views = recipe.pipeline.sample(
                item["query"],
                item["query_clip"],
                [index],
                num_inference_steps=config.sample.steps,
                guidance_scale=config.sample.guidance,
                view_size=config.data.view_size,
                unconditional_level=config.unconditional_level,
            )[0]
        background = background_mask(item["alpha"][0], config.sample.margin)
        mean, high = background_deviation(views, background)
        figures = {
            "psnr": psnr(views, item["views"][0]).mean(),
            "background_deviation": mean,
            "background_deviation_95": high,
            "background_spread": background_spread(views, background),
        }
        for name, value in figures.items():
            measures.setdefault(name, []).append(float(value))
        query = item["query"][0] * 0.8 + 0.5
        rows.append(_strip(query, item["views"][0], views))
    _save(rows, picture)
    return {name: round(sum(values) / len(values), 4) for name, values in measures.items()}


def _strip(
    query: Float[Tensor, "3 s s"],
    targets: Float[Tensor, "6 3 s s"],
    views: Float[Tensor, "6 3 s s"],
) -> Float[Tensor, "3 h w"]:
    """Return an image of the query and the targets, with the sampled views below the targets."""
    empty = torch.ones_like(query)
    upper = torch.cat([query, *targets], dim=2)
    lower = torch.cat([empty, *views], dim=2)
    line = torch.full((3, 1, upper.shape[2]), 0.8)
    return torch.cat([line, upper, lower], dim=1)


def _save(rows: Sequence[Float[Tensor, "3 h w"]], picture: Path) -> None:
    """Save the images of all objects in two columns."""
    half = (len(rows) + 1) // 2
    columns = [torch.cat(list(rows[:half]), dim=1), torch.cat(list(rows[half:]), dim=1)]
    gap = torch.ones(3, columns[0].shape[1], 8)
    padded = [
        torch.nn.functional.pad(c, (0, 0, 0, gap.shape[1] - c.shape[1]), value=1) for c in columns
    ]
    pixels = (torch.cat([padded[0], gap, padded[1]], dim=2).clamp(0, 1) * 255).round().byte()
    picture.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(picture)
