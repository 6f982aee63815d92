"""The configuration of a build: everything that `lrm build` can be told."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from core.config import Config, Renamed
from core.errors import BadInput
from core.storage import Storage
from filters.chain import FilterConfig
from filters.inspect_glb import InspectLimits
from pipelines.sources import is_hub
from pipelines.transfers.fetch_config import FetchConfig
from render.render_config import BlenderLimits, RenderConfig
from render.rigs import get_rig

__all__ = ["BuildConfig", "ExecutionConfig", "PriceConfig", "ShardConfig", "SurfaceConfig"]


class SurfaceConfig(Config):
    """What the companion geometry of an object holds beside its mesh."""

    points: PositiveInt = 100_000
    """Points on the surface, each with a normal."""
    seed: NonNegativeInt = 0
    """Of the points."""


class ShardConfig(Config):
    """How samples are packed."""

    samples_per_shard: Annotated[int, Field(ge=1)] = 64
    """Samples in a full shard; the last one of a build may hold fewer."""


class ExecutionConfig(Config):
    """How work is spread; nothing here changes a byte of the result."""

    fetch_cpus: PositiveFloat = 0.25
    """Cores that a download reserves."""
    render_gpus: PositiveFloat = 1.0
    """GPUs, or the share of one, that a render reserves with `--render.device gpu`."""
    fetch_resources: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Ray's custom resources of a download, such as {net: 0.1}: only nodes that have them take
    it."""
    render_resources: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Those of a measurement or render, such as {render: 1}."""
    pack_resources: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Those of the writing of a shard."""
    render_memory: Annotated[float, Field(ge=0)] = 0.0
    """Bytes of memory that a render reserves with Ray; by default none, and cores alone count."""
    ask_for_renders: NonNegativeInt = 0
    """Ask the cluster's autoscaler at once for nodes for this many renders; the request falls with
    the renders that are left."""
    attempts: Annotated[int, Field(ge=1)] = 3
    """Maximum attempts for work lost to infrastructure faults (worker, Blender, disk, storage),
    before the object counts as failed."""
    commit_seconds: PositiveFloat = 5.0
    """Outcomes are committed to the catalog at least this often."""
    commit_events: Annotated[int, Field(ge=1)] = 1000
    """Outcomes are committed when this many have come together."""


Price = Annotated[float, Field(ge=0)] | None


class PriceConfig(Config):
    """What machines and space cost; what has no price is not counted."""

    currency: str = "USD"
    core_hour: Price = None
    """Of one CPU core for one hour."""
    gpu_hour: Price = None
    """Of one GPU for one hour, the cores that come with it included."""
    gb_month: Price = None
    """Of 10^9 stored bytes for one month."""


class BuildConfig(Config):
    """What to build, from what, and where."""

    renamed: ClassVar = {
        "blender.max_nodes": Renamed("inspect.max_nodes", 20_000, min),
        "blender.max_triangles": Renamed("inspect.max_triangles", 5_000_000, min),
        "blender.max_texture_pixels": Renamed("inspect.max_total_pixels", 2**28, min),
    }

    source: str
    """`objaverse`, `objaverse@REVISION`, or the folder or URI of a mirror or of GLB files."""
    root: str
    """Folder or URI of the dataset."""
    captions: str | None = None
    """Cap3D's CSV, or for a folder of GLB files a CSV with a header: a path or URI."""
    rig: str = "lrm32"
    """The cameras."""
    geometry: bool = False
    """Also write surface points with normals and the normalised mesh, a file per object."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Only the first N objects in the order of the source's parts."""
    lvis: bool = False
    """Only objects of LVIS."""
    address: str = "local"
    """Ray: `local` starts one here, `auto` or HOST:PORT joins a cluster, `none` does without."""
    keep_raw: bool | None = None
    """Keep the GLB files below the root; by default only those of a remote source."""
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
    """Further stages that a package has added, with their settings: --stages '{sdf: {size: 64}}'
    passes every object through the stage `sdf`."""

    def checked(self) -> Self:
        """The same configuration with absolute local paths, so that it holds on every worker.

        Raises BadInput for what only other packages can judge: storages and the name of the rig.
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
