"""The moving average of weights: its recursion, float32, and restored weights."""

import torch
from torch import nn

from train.models.ema import Ema, ema_state


def run_steps(module: nn.Module, average: Ema, count: int) -> list[torch.Tensor]:
    """Change the weights `count` times, and update the average at the start of each step.

    Returns the weights after each step.
    """
    history = []
    for _ in range(count):
        average.take(module)
        with torch.no_grad():
            module.weight.add_(torch.randn_like(module.weight))
        history.append(module.weight.detach().float().clone())
    return history


def test_the_average_follows_the_recursion_over_the_weights_of_all_steps():
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    expected = module.weight.detach().clone()
    average = Ema(module, 0.9)
    for weights in run_steps(module, average, 5):
        expected = 0.9 * expected + 0.1 * weights
    current = module.weight.detach().clone()
    with average.applied_to(module):
        torch.testing.assert_close(module.weight.detach(), expected)
    assert torch.equal(module.weight, current)
    state = ema_state(average.state_dict(), module.state_dict(), 0.9)
    assert state.keys() == module.state_dict().keys()
    torch.testing.assert_close(state["weight"], expected)


def test_the_average_stays_in_float32_when_the_module_is_cast():
    torch.manual_seed(0)
    modules = nn.ModuleDict({"module": nn.Linear(3, 2)})
    modules["average"] = Ema(modules["module"], 0.999)
    modules.bfloat16()
    assert modules["module"].weight.dtype == torch.bfloat16
    assert {value.dtype for value in modules["average"].buffers()} == {torch.float32}
    before = modules["average"].state_dict()["weight"].clone()
    run_steps(modules["module"], modules["average"], 3)
    changed = modules["average"].state_dict()["weight"] - before
    # In bfloat16, with its 8 bits of precision, changes this small would be lost.
    assert 0 < changed.abs().max() < 0.02
    assert (changed != 0).all()
