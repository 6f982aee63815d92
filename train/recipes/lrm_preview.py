"""The preview of both LRM stages: what was given, what is there, what the model shows."""

from dataclasses import dataclass

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from train.monitoring.depth_and_normals import picture_depths, picture_normals
from train.monitoring.preview import picture_rows

__all__ = ["Shown", "compare"]

_KINDS = ("rgb", "alpha", "depth", "normals")


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """Views of one object."""

    rgb: Float[Tensor, "v 3 h w"]
    alpha: Float[Tensor, "v 1 h w"]
    depth: Float[Tensor, "v 1 h w"]
    normals: Float[Tensor, "v 3 h w"]

    @classmethod
    def of_item(cls, item: dict[str, Tensor], views: slice) -> "Shown":
        """Some targets of an item of stage 2."""
        return cls(**{name: item[f"target_{name}"][views] for name in _KINDS})

    def on_cpu(self) -> "Shown":
        """The same in float32 on the CPU."""
        return Shown(**{name: getattr(self, name).cpu().float() for name in _KINDS})


def compare(
    inputs: Float[Tensor, "v 3 s s"], target: Shown, model: Shown, size: tuple[int, int]
) -> Image.Image:
    """The inputs, then pairs of rows: rgb, alpha, depth and normals, and the model's with a hat."""
    rows = {"input": inputs.cpu()}
    truth, guess = target.on_cpu(), model.on_cpu()
    # Depth and normals are those of pixel centres, and have edges of their own.
    solid, guessed = (truth.depth > 0).float(), guess.alpha * (guess.depth > 0)
    depths = picture_depths([truth.depth, guess.depth], [solid, guessed])
    rows |= {"rgb": truth.rgb, "rgb^": guess.rgb, "alpha": truth.alpha, "alpha^": guess.alpha}
    rows |= dict(zip(("depth", "depth^"), depths, strict=True))
    rows["normal"] = picture_normals(truth.normals, solid)
    rows["normal^"] = picture_normals(guess.normals, guessed)
    return picture_rows(rows, size)
