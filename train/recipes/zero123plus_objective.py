"""The loss of Zero123++: v-prediction of the targets, with noise on targets and condition."""

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
    """Module of the trained UNet and its loss, whose forward pass returns the loss terms."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        alphas_cumprod: Float[Tensor, "t"],
        *,
        min_snr: float = 0.0,
        ema: float = 0.0,
        micro_batches: int = 1,
    ) -> None:
        """Wrap a UNet.

        `alphas_cumprod` is that of the noise schedule; `min_snr` is gamma of the loss weights (0:
        none); `ema` is the decay of the moving average (0: none); `micro_batches` is the number of
        forward passes per step in training.
        """
        super().__init__()
        self.denoiser = ReferenceUNet(unet)
        self.ema = Ema(unet, ema) if ema else None
        self._alphas, self._min_snr = alphas_cumprod.float(), min_snr
        self._micro_batches, self._calls = micro_batches, 0
        # In a list, so that they are not submodules: the frozen networks are not trained or saved.
        self._encoders: list[Encoders] = []

    def set_encoders(self, encoders: Encoders) -> None:
        """Set the frozen encoders of the batches; required before the first forward pass."""
        self._encoders = [encoders]

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return `loss`, and `v`, the loss without weights: means over the batch's objects.

        Random numbers are drawn on the CPU from each object's own seed, so they are the same on
        every device and in every batch.
        """
        if self.training and self.ema is not None:
            if self._calls % self._micro_batches == 0:
                self.ema.take(self.denoiser.unet)
            self._calls += 1
        return self.terms(batch, self.encode(batch), batch["timestep"], batch["dropped"])

    def encode(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the frozen encoders' encodings of a batch."""
        (encoders,) = self._encoders
        return encoders.encode(batch)

    def terms(
        self,
        batch: dict[str, Tensor],
        encoded: dict[str, Tensor],
        timesteps: Int[Tensor, "b"],
        dropped: Bool[Tensor, "b"],
    ) -> dict[str, Tensor]:
        """Return the loss terms of an encoded batch for given timesteps and dropped queries."""
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
        """Return the loss terms for given latents and noise, in float32 except inside the UNet."""
        dtype = self.denoiser.unet.dtype
        alphas = self._alphas.to(targets.device)
        noisy = add_noise(targets, noise, alphas, timesteps)
        reference = add_noise(condition, reference_noise, alphas, timesteps)
        v = self.denoiser(noisy.to(dtype), timesteps, prompt, reference.to(dtype)).float()
        error = (v - v_target(targets, noise, alphas, timesteps)).square().mean(dim=(1, 2, 3))
        weighted = error
        if self._min_snr:
            weighted = error * snr_weights(alphas[timesteps], self._min_snr)
        return {"loss": weighted.mean(), "v": error.mean()}


def snr_weights(alphas: Float[Tensor, "b"], gamma: float) -> Float[Tensor, "b"]:
    """Return the min-SNR weights for v-prediction (arXiv 2303.09556).

    min(SNR, gamma) / (SNR + 1) with SNR = ᾱ / (1 - ᾱ).
    """
    snr = alphas / (1 - alphas)
    return snr.clamp(max=gamma) / (snr + 1)


def _normal(
    like: Float[Tensor, "b c h w"], generators: Sequence[torch.Generator]
) -> Float[Tensor, "b c h w"]:
    """Return standard normal noise in the shape of `like`, each sample's from its own generator."""
    noise = [torch.randn(like.shape[1:], generator=generator) for generator in generators]
    return torch.stack(noise).to(like.device)
