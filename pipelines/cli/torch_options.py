"""Options of commands that run a model on this machine."""

from typing import TYPE_CHECKING

from core.errors import BadInput
from core.options import Parser, add_old_option

if TYPE_CHECKING:
    import torch

__all__ = ["add_device_option", "add_lpips_options", "open_device"]


def add_device_option(parser: Parser) -> None:
    """Add `--device`."""
    parser.add_argument(
        "--device",
        default="auto",
        metavar="NAME",
        help="cpu, cuda, cuda:1 ...; auto is cuda where there is one [default: auto]",
    )


def add_lpips_options(parser: Parser) -> None:
    """Add `--lpips.vgg` and `--lpips.linear`, as the training commands have them."""
    parser.add_argument(
        "--lpips.vgg",
        dest="lpips_vgg",
        metavar="FILE",
        help="torchvision's VGG16 [default: torch hub's cache]",
    )
    parser.add_argument(
        "--lpips.linear",
        dest="lpips_linear",
        metavar="FILE",
        help="vgg.pth of the lpips wheel [default: that of the installed wheel]",
    )
    for name in ("vgg", "linear"):
        add_old_option(parser, f"--lpips-{name}", f"--lpips.{name}")


def open_device(name: str) -> "torch.device":
    """The device of that name. Raises BadInput if this machine does not have it."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise BadInput(f"--device {name}: is no device; give cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadInput(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices"
        )
    if device.type not in ("cpu", "cuda"):
        raise BadInput(f"--device {name}: give cpu, cuda or cuda:N")
    return device
