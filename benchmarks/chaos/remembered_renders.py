"""A Blender child whose answers are remembered, so that a repeated build renders nothing twice."""

import contextlib
import hashlib
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import render.process
from dataset.cameras import Camera
from dataset.views import ViewSet
from render.process import BlenderProcess, Measurement, RenderReport, SceneReport
from render.render_config import RenderConfig

__all__ = ["remembered_renders"]

T = TypeVar("T")


@contextlib.contextmanager
def remembered_renders() -> Iterator[None]:
    """Let builds in this process render each object once; later builds get the same pictures."""
    setattr(render.process, "BlenderProcess", _RememberedRenders)  # noqa: B010 - a class
    try:
        yield
    finally:
        setattr(render.process, "BlenderProcess", BlenderProcess)  # noqa: B010


class _RememberedRenders:
    """The part of `BlenderProcess` that stages use: equal requests get equal answers."""

    _answers: ClassVar[dict[Any, Any]] = {}

    def __init__(self, *arguments: Any) -> None:
        self._blender = BlenderProcess(*arguments)
        self._opened: tuple[str, ...] | None = None
        """The digest and the settings of the object that was opened last."""
        self._load: Callable[[], SceneReport] | None = None
        """Loads this object into the child; None once that is done."""

    @property
    def has_scene(self) -> bool:
        """Whether an object is open."""
        return self._opened is not None

    def close(self) -> None:
        """End the child, if one was needed."""
        self._opened = None
        self._blender.close()

    def open(self, glb: Path, normalise: str, cull_shells: bool = True) -> SceneReport:
        """Return the report on an object."""
        digest = hashlib.sha256(glb.read_bytes()).hexdigest()
        self._opened = (digest, normalise, str(cull_shells))
        load = self._load = lambda: self._blender.open(glb, normalise, cull_shells)
        if ("open", self._opened) not in self._answers:
            self._answers["open", self._opened], self._load = load(), None
        return self._answers["open", self._opened]

    def measure(self, cameras: Sequence[Camera], **settings: Any) -> Measurement:
        """Return silhouettes and surface points of the open object."""
        request = (cameras, settings)
        return self._answer("measure", request, lambda: self._blender.measure(cameras, **settings))

    def render(
        self,
        cameras: Sequence[Camera],
        config: RenderConfig,
        on_view: Callable[[int, ViewSet], None],
    ) -> tuple[ViewSet, RenderReport]:
        """Return all views of the open object."""
        work = lambda: self._blender.render(cameras, config)  # noqa: E731 - one of three
        views, report = self._answer("render", (cameras, config.dump()), work)
        for view in range(len(cameras)):
            on_view(view, views)
        return views, report

    def _answer(self, name: str, request: Any, work: Callable[[], T]) -> T:
        key = (name, self._opened, hashlib.sha256(pickle.dumps(request)).digest())
        if key not in self._answers:
            if self._load is not None:
                self._load()
                self._load = None
            self._answers[key] = work()
        return self._answers[key]
