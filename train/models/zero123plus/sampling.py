"""Zero123++ sampling: Euler ancestral steps with noised condition latents and guidance."""

from collections.abc import Iterator, Sequence

import torch
from diffusers import EulerAncestralDiscreteScheduler
from diffusers.configuration_utils import FrozenDict
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float
from torch import Tensor

from train.models.zero123plus.reference_attention import ReferenceUNet

__all__ = ["denoising_steps", "first_latents", "sampling_scheduler"]


def sampling_scheduler(
    config: FrozenDict | dict, num_steps: int, device: torch.device
) -> EulerAncestralDiscreteScheduler:
    """Return an Euler ancestral scheduler with trailing timestep spacing.

    The spacing in `config` is ignored: the published one is linspace, with which no step starts at
    the noisiest timestep.
    """
    scheduler = EulerAncestralDiscreteScheduler.from_config(config, timestep_spacing="trailing")
    scheduler.set_timesteps(num_steps, device=device)
    return scheduler


def first_latents(
    shape: tuple[int, int, int, int],
    scheduler: EulerAncestralDiscreteScheduler,
    generators: Sequence[torch.Generator],
    like: Float[Tensor, "..."],
) -> Float[Tensor, "b c h w"]:
    """Draw the initial latents, noise times the largest sigma, with one generator per sample."""
    noise = randn_tensor(shape, generator=list(generators), device=like.device, dtype=like.dtype)
    return noise * scheduler.sigmas.max().to(noise)


def denoising_steps(
    unet: ReferenceUNet,
    scheduler: EulerAncestralDiscreteScheduler,
    latents: Float[Tensor, "b c h w"],
    prompt: Float[Tensor, "halves t d"],
    condition: Float[Tensor, "halves c hr wr"],
    guidance: float,
    generators: Sequence[torch.Generator],
) -> Iterator[Float[Tensor, "b c h w"]]:
    """Yield the latents after each step of the scheduler.

    With guidance, `prompt` and `condition` hold 2·b samples, the b unconditional ones (u) first,
    and the prediction is u + guidance · (c - u). Without guidance they hold b conditional samples
    (c). Each sample attends to its own condition latents, with new noise at every step:
    (x + sigma · noise) / √(sigma² + 1).
    """
    halves = prompt.shape[0] // latents.shape[0]
    for sigma, timestep in zip(scheduler.sigmas, scheduler.timesteps, strict=False):
        sigma = sigma.to(latents)
        # One generator per query image, so that results do not depend on the rest of the batch.
        noise = randn_tensor(
            (latents.shape[0], halves, *condition.shape[1:]),
            generator=list(generators),
            device=latents.device,
            dtype=latents.dtype,
        )
        noise = noise.transpose(0, 1).flatten(0, 1)
        v = unet(
            scheduler.scale_model_input(torch.cat([latents] * halves), timestep),
            timestep.expand(prompt.shape[0]),
            prompt,
            (condition + sigma * noise) / (sigma**2 + 1).sqrt(),
        )
        if halves == 2:
            unconditional, conditional = v.chunk(2)
            v = unconditional + guidance * (conditional - unconditional)
        latents = scheduler.step(v, timestep, latents, generator=list(generators)).prev_sample
        yield latents
