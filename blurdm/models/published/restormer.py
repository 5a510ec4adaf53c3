"""Restormer: images are reflected to multiples of 8."""

import re

from blurdm.core.config import Backbone
from blurdm.models.entries import PublishedNetwork, Rules, State, depths, width

MARK = "encoder_level1.0.attn.temperature"
LEVELS = ("encoder_level1.", "encoder_level2.", "encoder_level3.", "latent.", "refinement.")
RULES: Rules = (
    (r"^patch_embed\.proj\.", "into."),
    (r"^output\.", "out."),
    (r"^encoder_level(\d)\.", lambda m: f"encoders.{int(m[1]) - 1}."),
    (r"^decoder_level(\d)\.", lambda m: f"decoders.{3 - int(m[1])}."),
    (r"^latent\.", "middle."),
    (r"^down(\d)_\d\.body\.", lambda m: f"down.{int(m[1]) - 1}."),
    (r"^up(\d)_\d\.body\.", lambda m: f"up.{4 - int(m[1])}."),
    (r"^reduce_chan_level(\d)\.", lambda m: f"join.{3 - int(m[1])}."),
    (r"\.norm1\.body\.", ".attention_norm."),
    (r"\.norm2\.body\.", ".feed_norm."),
    (r"\.attn\.qkv_dwconv\.", ".attention.spread."),
    (r"\.attn\.project_out\.", ".attention.out."),
    (r"\.attn\.", ".attention."),
    (r"\.ffn\.project_in\.", ".feed.widen."),
    (r"\.ffn\.dwconv\.", ".feed.depthwise."),
    (r"\.ffn\.project_out\.", ".feed.narrow."),
)


def published(state: State, with_prior: bool, released: bool) -> PublishedNetwork:
    blocks = depths(state, *LEVELS)
    size = Backbone(name="restormer", width=width(state, "patch_embed.proj.weight"), blocks=blocks, dropout=0.0)

    def place(refinement: re.Match[str]) -> str:
        """Ours counts the refinement as the end of the last decoder."""
        return f"decoders.2.{int(refinement[1]) + blocks[0]}."

    return PublishedNetwork("Restormer", size, ((r"^refinement\.(\d+)\.", place), *RULES))
