"""Functions that ranks call in tests of collectives."""

import torch.distributed as dist

from core.errors import BadInput, LrmError
from train.resilience.collectives import on_rank_0


def result_on_rank_0(call: str) -> int | str:
    """Return the result that this rank receives from work on rank 0, or the error as text.

    `call` selects the work: "lrm error" and "other error" fail, anything else returns 7.
    """

    def work() -> int:
        assert dist.get_rank() == 0
        if call == "lrm error":
            raise BadInput("no such run")
        if call == "other error":
            raise KeyError("owner")
        return 7

    try:
        return on_rank_0(work)
    except LrmError as error:
        return f"{type(error).__name__}: {error}"
