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
        help="Device to compute on: cpu, cuda, cuda:1 ...; auto is cuda if there is one.",
    )


def add_lpips_options(parser: Parser) -> None:
    """Add `--lpips.vgg` and `--lpips.linear`, as the training commands have them."""
    parser.add_argument(
        "--lpips.vgg",
        dest="lpips_vgg",
        metavar="FILE",
        help="File of torchvision's VGG16. [default: the one in the cache of torch hub]",
    )
    parser.add_argument(
        "--lpips.linear",
        dest="lpips_linear",
        metavar="FILE",
        help="File vgg.pth of the lpips package. [default: the one of the installed package]",
    )
    for name in ("vgg", "linear"):
        add_old_option(parser, f"--lpips-{name}", f"--lpips.{name}")


def open_device(name: str) -> "torch.device":
    """Return the device of that name. Raises BadInput if this machine does not have it."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise BadInput(f"--device {name}: not a device; give cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadInput(
            f"--device {name}: this machine has only {torch.cuda.device_count()} CUDA devices"
        )
    if device.type not in ("cpu", "cuda"):
        raise BadInput(f"--device {name}: give cpu, cuda or cuda:N")
    return device
