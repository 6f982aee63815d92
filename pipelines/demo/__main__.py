"""`make demo`: run all steps once, from GLB files to a short training, and show the commands."""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import fmean

from pipelines.demo.demo_mirror import CAPTIONS_FILE, write_demo_source
from train.monitoring.metrics_log import read_metrics

__all__ = ["main"]

# Small enough for two CPU cores; a real dataset keeps the defaults (512 pixels, preset base).
_RENDER = ["--render.resolution", "192", "--render.samples", "4"]
_STEPS = 60
_TRAIN = (
    f"--steps {_STEPS} --batch-size 4 --num-workers 2 --preset tiny --loss.lpips 0 "
    "--data.num-inputs 4 --data.num-targets 2 --data.patch-size 32 --data.target-size-min 40 "
    "--data.target-size-max 56 --optimizer.learning-rate 1e-3 --checkpoint-every 20 "
    "--preview-every 20"
).split()
_AVERAGED = 10
"""Steps over which the losses that are printed are averaged."""


def main() -> int:
    """Run the demo; return 0, or the exit code of the first command that fails."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.demo", description=__doc__)
    parser.add_argument(
        "--source",
        help="folder of a mirror in Objaverse's layout; by default a small one is generated",
    )
    parser.add_argument(
        "--captions", help="Cap3D's captions (CSV); by default those of the generated mirror"
    )
    parser.add_argument("--out", default="demo-out", help="output folder [default: demo-out]")
    arguments = parser.parse_args()
    out = Path(arguments.out)
    source = Path(arguments.source or out / "source")
    if arguments.source is None:
        print(f"generating a small mirror in {source}")
        write_demo_source(source)
    captions = arguments.captions or (source / CAPTIONS_FILE if arguments.source is None else None)
    try:
        return _demo(out, str(source), str(captions) if captions else None)
    except subprocess.CalledProcessError as error:
        return int(error.returncode)


def _demo(out: Path, source: str, captions: str | None) -> int:
    root, run = str(out / "dataset"), str(out / "run")
    caption_options = ["--captions", captions] if captions else []
    _lrm("build", "--source", source, *caption_options, "--root", root, *_RENDER)
    snapshot = json.loads(_lrm("snapshot", "--root", root, "--validation-share", "0", "--json"))
    sheet = str(out / "sheet.png")
    kept = _first_kept(root)
    _lrm("inspect", "--root", root, kept, "--sheet", sheet)
    pinned = ["--root", root, "--snapshot", snapshot["snapshot"], "--out", run]
    _lrm("train", "nerf", *pinned, *_TRAIN)
    rows = read_metrics(Path(run))
    before = fmean(row["loss"] for row in rows[:_AVERAGED])
    after = fmean(row["loss"] for row in rows[-_AVERAGED:])
    print(
        f"\nloss: {before:.4f} (mean of the first {_AVERAGED} steps) -> {after:.4f} (of the last "
        f"{_AVERAGED})"
    )
    print(f"contact sheet: {sheet}\npreviews: {run}/previews")
    print("\nthree commands to try next:")
    _show("inspect", "--root", root, kept)
    stricter = ["--filters.occupancy.min-share", "0.2"]
    _show("plan", "--source", source, *caption_options, "--root", root, *_RENDER, *stricter)
    _show("train", "nerf", *pinned, *_TRAIN[2:], "--steps", str(10 * _STEPS))
    return 0


def _first_kept(root: str) -> str:
    from dataset.root import open_root
    from pipelines.building.dataset_status import load_standing

    return next(load_standing(open_root(root)).kept).asset_id


def _lrm(*words: str) -> str:
    """Print a command and run it; with `--json`, return its output."""
    print()
    _show(*words)
    command = [sys.executable, "-m", "pipelines.cli", *words]
    as_json = "--json" in words
    result = subprocess.run(
        command, check=True, text=True, stdout=subprocess.PIPE if as_json else None
    )
    if as_json:
        print(result.stdout.strip())
    return result.stdout or ""


def _show(*words: str) -> None:
    print("$ lrm " + shlex.join(words), flush=True)


if __name__ == "__main__":
    sys.exit(main())
