"""Reference attention: a UNet whose self-attention also attends to a noised reference image.

Zero123++ (arXiv 2310.15110). A first pass over the noised reference latents records the input
tokens of every self-attention. In the second pass, each self-attention takes its keys and values
from its own tokens followed by the recorded ones. Cross-attention is unchanged.
"""

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from jaxtyping import Float, Int
from torch import Tensor, nn

__all__ = ["ReferenceAttention", "ReferenceUNet", "Tokens"]

Tokens = dict[str, Tensor]
"""Input tokens of each self-attention, [b, tokens, width], by the name of its layer."""


class ReferenceAttention(AttnProcessor2_0):
    """Processor of one attention layer that records its tokens or also attends to recorded ones.

    Without `record` and `recall` it behaves like the standard processor. Both are arguments instead
    of state, so that a block that activation checkpointing recomputes repeats the same operation.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        record: Tokens | None = None,
        recall: Tokens | None = None,
    ) -> Tensor:
        """Attend from [b, tokens, width] to the same shape.

        The layer's tokens are written to `record`; those in `recall` are attended to.
        """
        if encoder_hidden_states is None:
            if record is not None:
                # Keep the first tokens: those of a recomputed block are not in the graph.
                record.setdefault(self.name, hidden_states)
            if recall is not None:
                encoder_hidden_states = torch.cat([hidden_states, recall[self.name]], dim=1)
        return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb)


class ReferenceUNet(nn.Module):
    """Wrapper that runs a standard UNet twice, first over the reference.

    It replaces the UNet's attention processors and has no weights of its own: its keys are `unet.`
    followed by the UNet's.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        unet.set_attn_processor(
            {
                name: ReferenceAttention(name.removesuffix(".processor"))
                for name in unet.attn_processors
            }
        )
        self.unet = unet

    def reference_tokens(
        self,
        reference: Float[Tensor, "b c hr wr"],
        timesteps: Int[Tensor, "b"] | Float[Tensor, "b"],
        prompt: Float[Tensor, "b t d"],
    ) -> Tokens:
        """Run the first pass over noised reference latents, and return the recorded tokens."""
        tokens: Tokens = {}
        self.unet(reference, timesteps, prompt, cross_attention_kwargs={"record": tokens})
        return tokens

    def forward(
        self,
        latents: Float[Tensor, "b c h w"],
        timesteps: Int[Tensor, "b"] | Float[Tensor, "b"],
        prompt: Float[Tensor, "b t d"],
        reference: Float[Tensor, "b c hr wr"],
    ) -> Float[Tensor, "b c h w"]:
        """Return the UNet's output for noisy latents, given equally noised reference latents.

        Both passes get the same timesteps and prompt, and gradients flow through both.
        """
        tokens = self.reference_tokens(reference, timesteps, prompt)
        kwargs = {"recall": tokens}
        return self.unet(latents, timesteps, prompt, cross_attention_kwargs=kwargs).sample
