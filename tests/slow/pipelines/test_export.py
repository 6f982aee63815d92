"""`lrm export` that is killed and resumed."""

import os
import signal
import time
from dataclasses import replace

import psutil

from dataset.snapshots.snapshot import write_snapshot
from tests.support.exports import NAMES, ExportDataset, file_contents, write_export_dataset
from tests.support.lrm import run_lrm
from tests.support.processes import start_lrm


def test_a_killed_export_leaves_no_process_and_is_resumed(tmp_path):
    spheres = write_export_dataset(tmp_path / "root")
    exported = tmp_path / "exported"
    assert spheres.export("instantmesh", exported).code == 0
    samples = [
        replace(sample, asset_id=f"copy:{number:02d}-{index}")
        for number in range(10)
        for index, sample in enumerate(spheres.samples)
    ]
    many = ExportDataset(spheres.root, write_snapshot(spheres.root, samples, None)["snapshot"])
    out = tmp_path / "out"
    words = many.words("instantmesh", out, "--workers", "2")
    driver = start_lrm([str(word) for word in words])
    objects = out / "rendering_random_32views"
    deadline = time.monotonic() + 120
    while not list(objects.glob("copy-*")):
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = psutil.Process(driver.pid).children(recursive=True)
    assert children
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
    finished = list(objects.glob("copy-*"))
    assert len(finished) < len(samples)
    assert not (out / "filtered_obj_name.json").exists()
    original = [file_contents(exported / "rendering_random_32views" / name) for name in NAMES]
    for folder in finished:
        pictures = {k: v for k, v in file_contents(folder).items() if k != "export.json"}
        assert pictures.items() <= original[int(folder.name[-1])].items()
        assert len(pictures) == 3 * 32 + 1
    report = run_lrm(*words, "--json").json()
    assert report["skipped"] == len(finished)
    assert report["exported"] == len(samples) - len(finished)
    assert len(os.listdir(objects)) == len(samples)
