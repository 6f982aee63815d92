"""Command-line arguments of short training runs."""

from pathlib import Path

from core.storage import Storage

SMALL = (
    "--batch-size 2 --preset tiny --loss.lpips 0 --data.num-inputs 3 --data.num-targets 1 "
    "--data.patch-size 16 --data.target-size-min 24 --data.target-size-max 32 "
    "--checkpoint-every 2 --preview-every 0 --optimizer.schedule-steps 8 --no-check-memory"
).split()
"""The estimate of the memory would take longer than the steps; runs of stage 2 are estimated."""
STAGE_TWO = (
    "--batch-size 1 --preset tiny --loss.lpips 0 --data.num-inputs 2 --data.num-targets 1 "
    "--data.frame-size 32 --checkpoint-every 2 --preview-every 0 "
    "--optimizer.schedule-steps 8"
).split()
PICTURE_TO_MESH = (
    "--batch-size 2 --preset tiny --data.num-points 300 --checkpoint-every 2 --preview-every 0 "
    "--optimizer.schedule-steps 8"
).split()
PICTURE_TO_MESH += ["--model", "{num_vertices: 24, image_size: 32, encoder_width: 2, hidden: 16}"]
COARSE = ["--model", "{mesh: {grid_resolution: 16}}"]


def dataset_options(dataset: tuple[Storage, str], out: Path) -> list[str]:
    """Return the options that name the root, the snapshot and the run folder."""
    root, snapshot = dataset
    return ["--root", root.uri, "--snapshot", snapshot, "--out", str(out)]


def nerf_arguments(dataset: tuple[Storage, str], out: Path, steps: int, *more: str) -> list[str]:
    """Return the arguments of a short run of stage 1 (`nerf`)."""
    return ["train", "nerf", *dataset_options(dataset, out), *SMALL, "--steps", str(steps), *more]


def mesh_arguments(dataset: tuple[Storage, str], out: Path, steps: int, *more: str) -> list[str]:
    """Return the arguments of a short run of stage 2 (`mesh`)."""
    run_options = dataset_options(dataset, out)
    return ["train", "mesh", *run_options, *STAGE_TWO, *COARSE, "--steps", str(steps), *more]


def surface_arguments(dataset: tuple[Storage, str], out: Path, steps: int, *more: str) -> list[str]:
    """Return the arguments of a short run of `pixel2mesh`; the dataset must have geometry."""
    run_options = dataset_options(dataset, out)
    return ["train", "pixel2mesh", *run_options, *PICTURE_TO_MESH, "--steps", str(steps), *more]
