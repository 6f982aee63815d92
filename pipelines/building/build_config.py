"""The configuration of a build: every option of `lrm build`.

The docstring of a field is the help text of its option.
"""

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from core.config import (
    Config,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Renamed,
    Seconds,
    nested_renames,
)
from core.errors import BadInput
from core.options import Choices
from core.storage import Storage
from filters.chain import FilterConfig
from filters.inspect_glb import InspectLimits
from pipelines.sources import is_hub
from pipelines.transfers.fetch_config import FetchConfig
from render.render_config import BlenderLimits, RenderConfig
from render.rigs import RIGS, get_rig

__all__ = ["BuildConfig", "ExecutionConfig", "PriceConfig", "ShardConfig", "SurfaceConfig"]


class SurfaceConfig(Config):
    """The surface points in an object's companion geometry file."""

    points: Annotated[int, Field(gt=0, le=10**8)] = 100_000
    """Number of points sampled on the surface of an object, each with a normal."""
    seed: NonNegativeInt = 0
    """Random seed of the surface points."""


class ShardConfig(Config):
    """How samples are packed into shards."""

    samples_per_shard: Annotated[int, Field(ge=1, le=100_000)] = 64
    """Number of samples in a full shard. The last shard of a build may hold fewer."""


class ExecutionConfig(Config):
    """How tasks are distributed and committed. No setting changes a byte of the result."""

    fetch_cpus: PositiveFloat = 0.25
    """CPU cores that one download reserves in Ray."""
    render_gpus: PositiveFloat = 1.0
    """GPUs that one render reserves with `--render.device gpu`; with 0.5, two renders share a
    GPU."""
    fetch_resources: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Custom Ray resources that one download reserves, such as '{net: 0.1}'. Only nodes that offer
    these resources run downloads."""
    render_resources: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Custom Ray resources that one measurement or render reserves, such as '{render: 1}'."""
    pack_resources: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Custom Ray resources that the writing of one shard reserves, such as '{disk: 1}'."""
    render_memory: Annotated[float, Field(ge=0, le=2**50)] = 0.0
    """Memory in bytes that one render reserves in Ray, such as 4e9. With 0, only the number of
    cores limits the renders on a node."""
    autoscaler_renders: NonNegativeInt = 0
    """When the build starts, request nodes for this many simultaneous renders from the cluster's
    autoscaler. The request shrinks when fewer renders are left. 0 sends no request."""
    attempts: Annotated[int, Field(ge=1, le=1000)] = 3
    """Maximum attempts for work lost to infrastructure faults (worker, Blender, disk, storage),
    before the object counts as failed."""
    commit_seconds: Seconds = 5.0
    """Longest time in seconds between two commits of finished work to the catalog."""
    commit_events: PositiveInt = 1000
    """Maximum number of events in one commit. If this many are ready, they are committed before
    `commit_seconds` have passed."""


Price = NonNegativeFloat | None


class PriceConfig(Config):
    """The prices of machines and storage. Estimates leave out everything without a price."""

    currency: str = "USD"
    """Currency of the prices, as it is printed."""
    core_hour: Price = None
    """Price of one CPU core for one hour, such as 0.04."""
    gpu_hour: Price = None
    """Price of one GPU for one hour, including the CPU cores that come with it, such as 2.5."""
    gb_month: Price = None
    """Price of storing 10^9 bytes for one month, such as 0.023."""


class BuildConfig(Config):
    """The input, the output and all settings of a build."""

    renamed: ClassVar = {
        "execution.ask_for_renders": Renamed("execution.autoscaler_renders"),
        "blender.max_nodes": Renamed("inspect.max_nodes", 20_000, min),
        "blender.max_triangles": Renamed("inspect.max_triangles", 5_000_000, min),
        "blender.max_texture_pixels": Renamed("inspect.max_total_pixels", 2**28, min),
        "blender.warm_seconds": Renamed("blender.kernel_compile_seconds"),
        **nested_renames("filters", FilterConfig.renamed),
        "fetch.parts": Renamed("fetch.partial_folder"),
        "fetch.wait_seconds": Renamed("fetch.rate_limit_wait_seconds"),
    }

    source: str
    """Where the objects come from: `objaverse`, `objaverse@REVISION`, or the folder or URI of a
    mirror or of GLB files, such as /data/models. A dataset remembers it, as most other settings."""
    root: str
    """Folder or URI of the dataset, such as /data/lrm or s3://bucket/lrm."""
    captions: str | None = None
    """Path or URI of the captions: Cap3D's CSV file, or a CSV file with a header for a folder of
    GLB files."""
    rig: Annotated[str, Choices(RIGS)] = "lrm32"
    """Camera layout of the rendered views."""
    geometry: bool = False
    """Also write the normalised mesh and surface points with normals, one file per object."""
    limit: PositiveInt | None = None
    """Build only the first N objects in the source's order; by default all."""
    lvis: bool = False
    """Build only the objects that the source lists under an LVIS category."""
    address: str = "local"
    """Where tasks run: `local` starts Ray on this machine, `auto` or HOST:PORT joins a Ray cluster,
    `none` runs all tasks in this process."""
    keep_raw: bool | None = None
    """Keep a copy of the GLB files in the dataset; by default only if the source is remote."""
    fetch: FetchConfig = FetchConfig()
    filters: FilterConfig = FilterConfig()
    render: RenderConfig = RenderConfig()
    inspect: InspectLimits = InspectLimits()
    surface: SurfaceConfig = SurfaceConfig()
    blender: BlenderLimits = BlenderLimits()
    shards: ShardConfig = ShardConfig()
    execution: ExecutionConfig = ExecutionConfig()
    prices: PriceConfig = PriceConfig()
    stages: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Additional stages that a package has registered, with their settings; '{sdf: {size: 64}}'
    passes every object through the stage `sdf`."""

    def checked(self) -> Self:
        """Return the same configuration with absolute local paths, which are valid on every worker.

        Raises BadInput for an unknown rig or an invalid source, root or captions path.
        """
        get_rig(self.rig)
        if not self.source or not self.root:
            raise BadInput("source and root must not be empty")
        paths = {"root": Storage(self.root).uri}
        if not is_hub(self.source):
            paths["source"] = Storage(self.source).uri
        if self.captions is not None:
            paths["captions"] = Storage(self.captions).uri
        return self.model_copy(update=paths)
