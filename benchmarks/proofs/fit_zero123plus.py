"""Overfit the fine-tune of Zero123++ on eight real objects.

`python -m benchmarks fit_zero123plus --root DATASET --snapshot ID --out RUN` takes the first eight
objects of a snapshot of rig zero123plus. The models are small enough for a CPU and start from
random weights. A random VAE produces noise, so it is first trained on the objects' images, as a
replacement for Stable Diffusion's VAE. Then the training of `lrm train zero123plus` runs. It prints
one JSON object: the loss of the first 10 and of the last 50 steps, PSNR in dB, deviations of the
background from white, and seconds. docs/notes/zero123plus.md shows the result of a run.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPImageProcessor

from benchmarks.help_text import benchmark_parser
from benchmarks.proofs.fit_views import show_fit
from core.storage import Storage
from dataset.root import open_root
from dataset.snapshots.snapshot import Sample, open_snapshot, write_snapshot
from pipelines.launch.ray_train import train_alone
from train.models.zero123plus.latents import image_to_vae
from train.models.zero123plus.pipeline import Zero123PlusPipeline
from train.models.zero123plus.tiny import tiny_pipeline
from train.monitoring.metrics_log import read_metrics
from train.recipes.zero123plus import Zero123PlusRecipe
from train.recipes.zero123plus_config import Zero123PlusTrainConfig

_SIDE = 48
"""Width of a tile and of the query image, in pixels."""
_FIRST_STEPS, _LAST_STEPS = 10, 50
"""Numbers of steps over which the first and the last loss are averaged."""


def main() -> None:
    """Create the pipeline, train its VAE and its UNet, print the figures and save an image."""
    parser = benchmark_parser(__doc__)
    add = parser.add_argument
    add("--root", required=True, help="folder or URI of a dataset of rig zero123plus")
    add("--snapshot", required=True, metavar="ID", help="snapshot in that dataset")
    add("--out", type=Path, required=True, metavar="DIR", help="new run folder")
    add("--objects", type=int, default=8, help="number of objects")
    add("--steps", type=int, default=2400, help="training steps of the UNet")
    add("--batch-size", type=int, default=4, help="objects per step")
    add("--vae-steps", type=int, default=1600, help="training steps of the VAE")
    add("--learning-rate", type=float, default=2e-3, help="first learning rate of the UNet")
    add(
        "--picture",
        type=Path,
        metavar="FILE",
        help="image of queries, targets and sampled views [default: fit.png in --out]",
    )
    args = parser.parse_args()
    torch.manual_seed(0)
    root = open_root(args.root)
    samples = open_snapshot(root, args.snapshot).samples[: args.objects]
    snapshot = write_snapshot(root, samples, None, protect_days=0)["snapshot"]
    config = Zero123PlusTrainConfig.load(
        {
            "root": args.root,
            "snapshot": snapshot,
            "out": str(args.out),
            "init": str(args.out.absolute() / "start"),
            "steps": args.steps,
            "batch_size": args.batch_size,
            "checkpoint_every": args.steps,
            "preview_every": 300,
            "validate_every": 0,
            "latent_cache": str(args.out / "latents"),
            "ema": 0.99,
            "data": {"view_size": _SIDE, "query_size_min": _SIDE, "query_size_max": _SIDE},
            "sample": {"steps": 40, "guidance": 2.0, "margin": 2},
            "optimizer": {
                "learning_rate": args.learning_rate,
                "final_learning_rate": args.learning_rate / 20,
                "warmup_steps": 50,
            },
        }
    )
    started = time.monotonic()
    pipeline = _small_pipeline()
    pipeline.save_pretrained(args.out / "start")
    error = _overfit_vae(pipeline.vae, _training_images(config, root, samples), args.vae_steps)
    pipeline.save_pretrained(args.out / "start")
    vae_seconds = time.monotonic() - started
    train_alone(Zero123PlusRecipe(config))
    figures = _curve(args.out) | {
        "vae_psnr": round(-10 * torch.tensor(error).log10().item(), 2),
        "vae_seconds": round(vae_seconds),
        "seconds": round(time.monotonic() - started),
        **show_fit(args.out, root, samples, args.picture or args.out / "fit.png"),
    }
    (args.out / "figures.json").write_text(json.dumps(figures, indent=1))
    print(json.dumps(figures))


def _small_pipeline() -> Zero123PlusPipeline:
    """Return the tests' tiny pipeline with a VAE and a UNet that can memorise eight objects."""
    parts = dict(tiny_pipeline(0).components)
    parts["vae"] = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 32),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=_SIDE,
    )
    parts["unet"] = UNet2DConditionModel(
        sample_size=_SIDE // 4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64),
        layers_per_block=1,
        cross_attention_dim=parts["unet"].config.cross_attention_dim,
        attention_head_dim=(2, 4),
        norm_num_groups=8,
        use_linear_projection=True,
    )
    parts["feature_extractor_vae"] = CLIPImageProcessor(
        size={"shortest_edge": _SIDE},
        crop_size={"height": _SIDE, "width": _SIDE},
        image_mean=0.5,
        image_std=0.8,
        resample=2,
    )
    ramp = tiny_pipeline(0).config.ramping_coefficients
    return Zero123PlusPipeline(**parts, ramping_coefficients=list(ramp))


def _training_images(
    config: Zero123PlusTrainConfig, root: Storage, samples: Sequence[Sample]
) -> Tensor:
    """Return all images of the objects in the range of the VAE, [n, 3, side, side]."""
    dataset = Zero123PlusRecipe(config).validation_dataset(root, samples)
    items: list[Any] = [dataset[index] for index in range(len(samples))]
    images = [torch.cat([item["query"][None], image_to_vae(item["views"])]) for item in items]
    return torch.cat(images)


def _overfit_vae(vae: AutoencoderKL, pixels: Tensor, steps: int) -> float:
    """Overfit a VAE on images and set its scaling factor.

    Return the mean squared error of its reconstructions, of images in [0, 1].
    """
    optimizer = torch.optim.AdamW(vae.parameters(), lr=3e-3, weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    vae.train()
    for _ in range(steps):
        batch = pixels[torch.randint(len(pixels), (4,))]
        posterior = vae.encode(batch).latent_dist
        loss = (vae.decode(posterior.sample()).sample - batch).square().mean()
        (loss + 1e-5 * posterior.kl().mean() / posterior.mean[0].numel()).backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    vae.eval()
    with torch.no_grad():
        means = vae.encode(pixels).latent_dist.mean
        vae.register_to_config(scaling_factor=1 / means.std().item())
        return (vae.decode(means).sample - pixels).square().mean().item() * 0.8**2


def _curve(run: Path) -> dict[str, float]:
    """Return the mean unweighted loss of the first and of the last steps, and their ratio."""
    losses = torch.tensor([row["v"] for row in read_metrics(run)])
    first = losses[:_FIRST_STEPS].mean().item()
    last = losses[-_LAST_STEPS:].mean().item()
    return {"v_first": round(first, 4), "v_last": round(last, 4), "times": round(first / last, 2)}
