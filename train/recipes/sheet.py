"""The preview of both LRM stages: what was given, what is there, what the model shows."""

from dataclasses import dataclass

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from train.pictures import picture_depths, picture_normals
from train.preview import picture_rows

__all__ = ["Shown", "compare"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """Views of one object."""

    rgb: Float[Tensor, "v 3 h w"]
    alpha: Float[Tensor, "v 1 h w"]
    depth: Float[Tensor, "v 1 h w"]
    normals: Float[Tensor, "v 3 h w"]

    @classmethod
    def of_item(cls, item: dict[str, Tensor], views: slice) -> "Shown":
        """Some targets of an item of stage 2, on the CPU."""
        names = ("rgb", "alpha", "depth", "normals")
        return cls(**{name: item[f"target_{name}"][views].cpu() for name in names})


def compare(
    inputs: Float[Tensor, "v 3 s s"], target: Shown, model: Shown, size: tuple[int, int]
) -> Image.Image:
    """Rows input, and target and prediction of RGB, alpha, depth and normals."""
    seen = {"target": target, "model": model}
    alphas = {name: one.alpha.cpu().float() for name, one in seen.items()}
    depths = {name: one.depth.cpu().float() for name, one in seen.items()}
    # Depth and normals are those of pixel centres, and have edges of their own.
    solid = {
        "target": (depths["target"] > 0).float(),
        "model": alphas["model"] * (depths["model"] > 0),
    }
    depths = picture_depths(depths, solid)
    rows = {"input": inputs.cpu()}
    rows |= {f"rgb {name}": one.rgb.cpu() for name, one in seen.items()}
    rows |= {f"alpha {name}": alphas[name] for name in seen}
    rows |= {f"depth {name}": depths[name] for name in seen}
    rows |= {
        f"normal {name}": picture_normals(one.normals.cpu().float(), solid[name])
        for name, one in seen.items()
    }
    return picture_rows(rows, size)
