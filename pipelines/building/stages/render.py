"""The stage `render`: renders all views of an object, checks them and stages them for packing."""

import time
from typing import Any

from dataset.columns import integer, number, text
from dataset.format.shards import write_sample_tar
from dataset.object_record import sample_key
from dataset.views import SAMPLE_FORMAT, ViewSet, depth_scale_for, encode_meta, encode_view
from pipelines.building.build_config import BuildConfig
from pipelines.building.stages.blender_scene import (
    camera_identity,
    open_scene,
    rounded,
    scene_identity,
)
from pipelines.building.stages.fetch import SHA256
from pipelines.building.stages.identity_keys import RENDER_KEYS, identity_of
from pipelines.building.stages.max_seconds import OWN_SECONDS, scene_seconds
from pipelines.building.stages.object_state import ObjectState
from pipelines.building.stages.picture_work import picture_bytes, picture_seconds
from pipelines.building.stages.queues import RENDER_QUEUE
from pipelines.building.stages.stage import (
    FirstEstimate,
    ResultFile,
    RigScope,
    Stage,
    StoredBytes,
)
from pipelines.building.stages.worker_context import WorkerContext
from render.rigs import Rig

__all__ = ["BYTES", "DARK_SHARE", "RENDER", "STAGING", "render_identity"]

STAGING = text("render", "staging", "path of the staged sample", detail=True)
BYTES = integer("render", "bytes", "size of the sample")
DARK_SHARE = number(
    "render",
    "dark_share",
    "share of the visible surface that is black, although its base colour is not",
)

_FOLDER = "staging"
_FIXED_SECONDS = 0.7
"""Core-seconds of the parts of a render that do not depend on its pictures."""


def render_identity(config: BuildConfig, rig: Rig) -> list[Any]:
    """Return the versions and settings that a rendered sample depends on."""
    settings = identity_of(config, RENDER_KEYS)
    return [*scene_identity(config), SAMPLE_FORMAT, camera_identity(rig), settings]


def _render(state: ObjectState, context: WorkerContext) -> dict[str, Any]:
    from render.check import check_render

    _, seconds = open_scene(state, context)
    cameras = context.rig.cameras(state.asset_id)
    scale = depth_scale_for(cameras)
    members: dict[str, bytes] = {}
    encoding = 0.0

    def encode(view: int, views: ViewSet) -> None:
        nonlocal encoding
        started = time.monotonic()
        pictures = views.rgba[view], views.depth[view], views.normals[view]
        members.update(encode_view(view, *pictures, scale))
        encoding += time.monotonic() - started

    views, report = context.blender.render(cameras, context.config.render, on_view=encode)
    rendered = time.monotonic()
    dark_share = check_render(views, report, context.config.render)
    coverage = [round(float((rgba[..., 3] > 127).mean()), 6) for rgba in views.rgba]
    checked = time.monotonic()
    render_key = context.identities.key(RENDER, state)
    meta = {
        "asset_id": state.asset_id,
        "sha256": state.require(SHA256),
        "rig": context.rig.name,
        "normalise": context.rig.normalise,
        "render_key": render_key,
        "samples": report.samples,
    }
    side = context.config.render.resolution
    members |= [encode_meta(cameras, side, side, scale, meta)]
    staging = f"{_FOLDER}/{render_key}.tar"
    context.root.write(staging, write_sample_tar(sample_key(state.asset_id), members))
    seconds |= report.timings | {"encode": encoding, "check": checked - rendered}
    seconds["stage"] = time.monotonic() - checked
    return {
        STAGING.name: staging,
        BYTES.name: sum(len(data) for data in members.values()),
        DARK_SHARE.name: round(dark_share, 6),
        "coverage": coverage,
        "samples": report.samples,
        "timings": rounded(seconds),
    }


def _max_seconds(config: BuildConfig) -> float:
    return scene_seconds(config) + config.blender.render_seconds + OWN_SECONDS


def _estimate(config: BuildConfig) -> FirstEstimate:
    parts = picture_seconds(config)
    return FirstEstimate(
        seconds=_FIXED_SECONDS + sum(parts.values()),
        parts=parts,
        num_bytes=picture_bytes(config),
        share=0.7,
    )


RENDER = Stage(
    name="render",
    inputs=("fetch",),
    input_version=SHA256,
    identity=render_identity,
    version=SAMPLE_FORMAT,
    rig=RigScope.CAMERAS,
    enabled_by=lambda _: True,
    columns=(STAGING, BYTES, DARK_SHARE),
    queue=RENDER_QUEUE,
    run=_render,
    max_seconds=_max_seconds,
    uses_blender=True,
    uses_gpu=True,
    estimate=_estimate,
    stores=StoredBytes(column=BYTES, label="samples"),
    file=ResultFile(location=(STAGING,), folder=_FOLDER, required=False, until="pack"),
)
