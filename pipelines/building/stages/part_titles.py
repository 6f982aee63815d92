"""Titles of the timed parts of stages, for text output."""

__all__ = ["part_title"]

_TITLES = {
    "start": "starting Blender",
    "bring": "sending the file",
    "import": "importing",
    "evaluate": "evaluating the scene",
    "measure": "silhouettes",
    "islands": "separate objects",
    "prepare": "preparing",
    "geometry": "depth and normals",
    "probe": "choosing samples",
    "colour": "colour",
    "base_colours": "base colours",
    "sync": "loading the scene",
    "sample": "sampling",
    "denoise": "denoising",
    "read": "reading views",
    "encode": "encoding views",
    "check": "checking views",
    "stage": "writing the sample",
    "handover": "waiting for views",
    "surface": "surface points",
    "write": "writing the file",
}


def part_title(part: str) -> str:
    """Return the title of a timed part; the parts of an added stage keep their names."""
    return _TITLES.get(part, part)
