"""The files of a checkpoint: which rank writes and which rank reads each.

| file | written by | read by |
|---|---|---|
| `mp_rank_00_model_states.pt` (ZeRO 0 to 2): the whole module | rank 0 | all ranks |
| `zero_pp_rank_N_mp_rank_00_model_states.pt` (ZeRO 3): a part of the module | rank N | rank N |
| `*zero_pp_rank_N_mp_rank_00_optim_states.pt`: a part of the optimizer's state | rank N | rank N |
| `random-NNNNN.pt`: the state of the random number generators | rank N | rank N |
| `manifest.json`: sizes and hashes of the others | rank 0, last | all ranks |

Rank 0 reads all files if it converts the checkpoint for another number of ranks.
"""

import re
from pathlib import Path

import torch

__all__ = ["is_needed", "restore_random_state", "save_random_state", "writer_of"]

_RANK = re.compile(r"(?:pp_rank_|random-)(\d+)")


def writer_of(name: str) -> int:
    """Return the rank that writes a file of this name."""
    match = _RANK.search(name)
    return int(match[1]) if match else 0


def is_needed(name: str, rank: int) -> bool:
    """Return whether a rank reads a file, if the number of ranks has not changed."""
    return _RANK.search(name) is None or writer_of(name) == rank


def save_random_state(folder: Path, rank: int) -> None:
    """Write the random state of this rank. Raises OSError or RuntimeError, as torch.save does."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    torch.save(state, folder / _random_file(rank))


def restore_random_state(folder: Path, rank: int) -> None:
    """Set the random state of this rank to the one in a checkpoint's folder."""
    state = torch.load(folder / _random_file(rank), weights_only=True)
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _random_file(rank: int) -> str:
    return f"random-{rank:05d}.pt"
