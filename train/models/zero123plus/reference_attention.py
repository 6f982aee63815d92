"""Reference attention: a UNet that looks at a second, noised picture through its self-attention.

Zero123++ (arXiv 2310.15110). A first pass over the noised reference latents keeps what goes into
every self-attention; in the second pass each self-attention takes its keys and values from its own
tokens and, after them, the kept ones. Cross-attention is as it was.
"""

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from jaxtyping import Float, Int
from torch import Tensor, nn

__all__ = ["ReferenceAttention", "ReferenceUNet", "Tokens"]

Tokens = dict[str, Tensor]
"""What went into each self-attention, [b, tokens, width], by the name of its layer."""


class ReferenceAttention(AttnProcessor2_0):
    """Processor of one attention layer: keeps its tokens, or attends to kept ones too.

    Without `record` and `recall` it is the stock processor. Which of the two a pass does comes as
    an argument and is no state, so that a block which activation checkpointing runs again in the
    backward pass does again what it did.
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
        """[b, tokens, width] to the same; `record` is written, `recall` is read."""
        if encoder_hidden_states is None:
            if record is not None:
                # The first stays: what a checkpointed block computes again belongs to no graph.
                record.setdefault(self.name, hidden_states)
            if recall is not None:
                encoder_hidden_states = torch.cat([hidden_states, recall[self.name]], dim=1)
        return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb)


class ReferenceUNet(nn.Module):
    """A stock UNet run twice, first over the reference; its attention processors are replaced.

    The weights are the UNet's own (`unet.` and its keys); the wrapper has none.
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
        """The first pass: the tokens of every self-attention over noised reference latents."""
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
        """The UNet's output for noisy latents, given reference latents noised to the same timestep.

        Both passes take the same timesteps and prompt, and gradients flow through both.
        """
        tokens = self.reference_tokens(reference, timesteps, prompt)
        kwargs = {"recall": tokens}
        return self.unet(latents, timesteps, prompt, cross_attention_kwargs=kwargs).sample
