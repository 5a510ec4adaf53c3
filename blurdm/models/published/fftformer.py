"""FFTformer: images are reflected to multiples of 32, by BlurDM before the prior."""

from blurdm.core.config import Backbone
from blurdm.models.entries import PublishedNetwork, Rules, State, depths, reflected, width

MARK = "encoder_level1.0.ffn.fft"
RULES: Rules = (
    (r"^patch_embed\.proj\.", "into."),
    (r"^(en|de)coder_level(\d)\.", lambda m: f"{m[1]}coders.{int(m[2]) - 1}."),
    (r"^down1_2\.body\.1\.", "down.0."),
    (r"^down2_3\.body\.1\.", "down.1."),
    (r"^up2_1\.body\.1\.", "up.0."),
    (r"^up3_2\.body\.1\.", "up.1."),
    (r"^fuse(\d)\.att_channel\.", lambda m: f"merge.{int(m[1]) - 1}.block."),
    (r"^fuse(\d)\.conv\.", lambda m: f"merge.{int(m[1]) - 1}.mix."),
    (r"^fuse(\d)\.conv2\.", lambda m: f"merge.{int(m[1]) - 1}.halves."),
    (r"^reduce_chan_level2\.", "unused."),
    (r"^output\.", "out."),
    (r"\.norm1\.body\.", ".attention.norm."),
    (r"\.norm2\.body\.", ".ffn_norm."),
    (r"\.attn\.to_hidden\.", ".attention.qkv.0."),
    (r"\.attn\.to_hidden_dw\.", ".attention.qkv.1."),
    (r"\.attn\.project_out\.", ".attention.narrow."),
    (r"\.attn\.norm\.body\.", ".attention.product_norm."),
    (r"\.attn\.kv\.weight", ".attention.fusion.linear.weight"),
    (r"\.ffn\.fft$", ".ffn.filter.factor"),
    (r"\.ffn\.project_in\.", ".ffn.widen."),
    (r"\.ffn\.dwconv\.", ".ffn.depthwise."),
    (r"\.ffn\.project_out\.", ".ffn.narrow."),
)


def published(state: State, with_prior: bool, released: bool) -> PublishedNetwork:
    size = Backbone(
        name="fftformer",
        width=width(state, "patch_embed.proj.weight"),
        blocks=depths(state, "encoder_level1.", "encoder_level2.", "encoder_level3.", "refinement."),
        dropout=0.0,
        inference=reflected(32) if with_prior else None,
    )
    return PublishedNetwork("FFTformer of BlurDM" if with_prior else "FFTformer", size, RULES)
