"""The moving average: the recursion by hand, float32, and weights that come back."""

import torch
from torch import nn

from train.models.ema import Ema, ema_state


def steps(module: nn.Module, average: Ema, count: int) -> list[torch.Tensor]:
    """Take each step's weights as training does: when the next step begins."""
    seen = []
    for _ in range(count):
        average.take(module)
        with torch.no_grad():
            module.weight.add_(torch.randn_like(module.weight))
        seen.append(module.weight.detach().float().clone())
    return seen


def test_it_is_the_recursion_over_all_weights():
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    expected = module.weight.detach().clone()
    average = Ema(module, 0.9)
    for weights in steps(module, average, 5):
        expected = 0.9 * expected + 0.1 * weights
    own = module.weight.detach().clone()
    with average.applied_to(module):
        torch.testing.assert_close(module.weight.detach(), expected)
    assert torch.equal(module.weight, own)
    found = ema_state(average.state_dict(), module.state_dict(), 0.9)
    assert found.keys() == module.state_dict().keys()
    torch.testing.assert_close(found["weight"], expected)


def test_it_stays_in_float32_where_all_else_is_cast():
    torch.manual_seed(0)
    both = nn.ModuleDict({"module": nn.Linear(3, 2)})
    both["average"] = Ema(both["module"], 0.999)
    both.bfloat16()
    assert both["module"].weight.dtype == torch.bfloat16
    assert {value.dtype for value in both["average"].buffers()} == {torch.float32}
    before = both["average"].state_dict()["weight"].clone()
    steps(both["module"], both["average"], 3)
    changed = both["average"].state_dict()["weight"] - before
    # Changes that 8 bits would have lost.
    assert 0 < changed.abs().max() < 0.02
    assert (changed != 0).all()
