"""The loss of Zero123++: noise on targets and condition, and v of the targets predicted."""

from collections.abc import Sequence

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from train.models.ema import Ema
from train.models.zero123plus.latents import add_noise, v_target
from train.models.zero123plus.reference_attention import ReferenceUNet
from train.recipes.zero123plus_encoders import Encoders

__all__ = ["ViewDiffusion", "snr_weights"]


class ViewDiffusion(nn.Module):
    """The trained UNet, and what its loss needs: DeepSpeed wraps what is called in training."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        alphas_cumprod: Float[Tensor, "t"],
        *,
        min_snr: float = 0.0,
        ema: float = 0.0,
        micro_batches: int = 1,
    ) -> None:
        """`micro_batches`: calls in training that make a step. `ema`: decay; 0 keeps none."""
        super().__init__()
        self.denoiser = ReferenceUNet(unet)
        self.ema = Ema(unet, ema) if ema else None
        self._alphas, self._min_snr = alphas_cumprod.float(), min_snr
        self._micro_batches, self._calls = micro_batches, 0
        # Frozen networks are no part of the trained state.
        self._encoders: list[Encoders] = []

    def freeze(self, encoders: Encoders) -> None:
        """Give it what encodes a batch."""
        self._encoders = [encoders]

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`loss`, and `v` without weights: means over the batch's objects.

        What is drawn comes from each object's own seed, on the CPU: the same numbers everywhere.
        """
        if self.training and self.ema is not None:
            if self._calls % self._micro_batches == 0:
                self.ema.take(self.denoiser.unet)
            self._calls += 1
        return self.terms(batch, self.encode(batch), batch["timestep"], batch["dropped"])

    def encode(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the frozen encoders make of a batch."""
        (encoders,) = self._encoders
        return encoders.encode(batch)

    def terms(
        self,
        batch: dict[str, Tensor],
        encoded: dict[str, Tensor],
        timesteps: Int[Tensor, "b"],
        dropped: Bool[Tensor, "b"],
    ) -> dict[str, Tensor]:
        """The loss of an encoded batch, with timesteps and dropped queries of one's own."""
        (encoders,) = self._encoders
        generators = [torch.Generator().manual_seed(seed) for seed in batch["seed"].tolist()]
        dtype = self.denoiser.unet.dtype
        condition = encoders.condition(encoded["condition"], dropped, batch["query"], generators)
        targets = encoders.targets(encoded["targets"], generators)
        prompt = encoders.prompt(encoded["embedding"], dropped)
        noise, reference_noise = (_normal(one, generators) for one in (targets, condition))
        return self.denoise(
            targets.float(), condition.float(), noise, reference_noise, timesteps, prompt.to(dtype)
        )

    def denoise(
        self,
        targets: Float[Tensor, "b c h w"],
        condition: Float[Tensor, "b c hr wr"],
        noise: Float[Tensor, "b c h w"],
        reference_noise: Float[Tensor, "b c hr wr"],
        timesteps: Int[Tensor, "b"],
        prompt: Float[Tensor, "b t d"],
    ) -> dict[str, Tensor]:
        """The loss of given latents and noise, in float32 but for what the UNet does."""
        dtype = self.denoiser.unet.dtype
        alphas = self._alphas.to(targets.device)
        noisy = add_noise(targets, noise, alphas, timesteps)
        reference = add_noise(condition, reference_noise, alphas, timesteps)
        found = self.denoiser(noisy.to(dtype), timesteps, prompt, reference.to(dtype)).float()
        error = (found - v_target(targets, noise, alphas, timesteps)).square().mean(dim=(1, 2, 3))
        weighted = error
        if self._min_snr:
            weighted = error * snr_weights(alphas[timesteps], self._min_snr)
        return {"loss": weighted.mean(), "v": error.mean()}


def snr_weights(alphas: Float[Tensor, "b"], gamma: float) -> Float[Tensor, "b"]:
    """min(SNR, gamma) / (SNR + 1) with SNR = ᾱ / (1 - ᾱ): min-SNR for v (arXiv 2303.09556)."""
    snr = alphas / (1 - alphas)
    return snr.clamp(max=gamma) / (snr + 1)


def _normal(
    like: Float[Tensor, "b c h w"], generators: Sequence[torch.Generator]
) -> Float[Tensor, "b c h w"]:
    """Normal numbers, each sample's from its own generator."""
    each = [torch.randn(like.shape[1:], generator=generator) for generator in generators]
    return torch.stack(each).to(like.device)
