"""Generation of a small source in Objaverse's layout: `python -m pipelines.demo_source DIR`."""

import argparse
import csv
import gzip
import hashlib
import io
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from PIL import Image

from core.errors import BadInput
from pipelines.demo.demo_objects import OBJECTS, DemoObject
from pipelines.demo.demo_shapes import Part, export_glb

__all__ = ["CAPTIONS_FILE", "write_demo_source"]

CAPTIONS_FILE = "Cap3D_automated_Objaverse_full.csv"

_AUTHOR = "lrm-objaverse"
_NUM_FOLDERS = 3


def write_demo_source(folder: Path) -> None:
    """Write the source, with the same bytes every time; unchanged files are not written again.

    Raises BadInput if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{folder}: cannot create the folder: {error.strerror}") from None
    paths: dict[str, str] = {}
    metadata: dict[str, dict[str, Any]] = defaultdict(dict)
    categories: dict[str, list[str]] = {}
    captions: list[tuple[str, str]] = []
    files: dict[str, bytes] = {}
    for item in OBJECTS:
        uid = hashlib.md5(item.name.encode(), usedforsecurity=False).hexdigest()
        number = f"000-{int(uid, 16) % _NUM_FOLDERS:03d}"
        paths[uid] = f"glbs/{number}/{uid}.glb"
        parts = item.build()
        glb = export_glb(parts)
        files[paths[uid]] = glb[: len(glb) // 2] if item.truncated else glb
        metadata[number][uid] = _metadata(item, uid, parts, len(glb))
        if item.category is not None:
            categories.setdefault(item.category, []).append(uid)
        if item.caption is not None:
            captions.append((uid, item.caption))
    files["object-paths.json.gz"] = _json_gz(paths)
    files["lvis-annotations.json.gz"] = _json_gz(categories)
    for number, annotations in metadata.items():
        files[f"metadata/{number}.json.gz"] = _json_gz(annotations)
    files[CAPTIONS_FILE] = _csv(captions)
    try:
        for path, data in files.items():
            _write(folder / path, data)
    except OSError as error:
        raise BadInput(f"{folder}: cannot write the demo source: {error}") from None


def _metadata(item: DemoObject, uid: str, parts: list[Part], size: int) -> dict[str, Any]:
    """Return the metadata of an object in Objaverse's form."""
    textures = [part.paint for part in parts if isinstance(part.paint, Image.Image)]
    num_faces = sum(len(part.faces) for part in parts)
    return {
        "uid": uid,
        "uri": "",
        "viewerUrl": "",
        "name": item.name,
        "license": "cc0",
        "tags": [{"name": tag, "slug": tag, "uri": ""} for tag in item.tags],
        "categories": [],
        "description": item.caption or "",
        "user": {"username": _AUTHOR},
        "faceCount": num_faces,
        "vertexCount": sum(len(part.vertices) for part in parts),
        "animationCount": 0,
        "isDownloadable": True,
        "isAgeRestricted": False,
        "publishedAt": "2024-04-01T00:00:00",
        "archives": {
            "glb": {
                "size": size,
                "faceCount": num_faces,
                "textureCount": len(textures),
                "textureMaxResolution": max((max(image.size) for image in textures), default=0),
            }
        },
    }


def _json_gz(value: Any) -> bytes:
    return gzip.compress(json.dumps(value, sort_keys=True).encode(), mtime=0)


def _csv(rows: list[tuple[str, str]]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def _write(path: Path, data: bytes) -> None:
    # An unchanged file keeps its modification time, so that a second build has nothing to do.
    if path.is_file() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.demo_source",
        description="Write a small source of GLB files in Objaverse's layout.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder to write to")
    folder = parser.parse_args(arguments).folder
    try:
        write_demo_source(folder)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{len(OBJECTS)} objects in {folder}, captions in {folder / CAPTIONS_FILE}")
    return 0
