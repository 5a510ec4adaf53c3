"""LoFormer-S, -B and -L: images are reflected to multiples of 8, by BlurDM before the prior. Whole images, no tiles."""

from blurdm.core.config import Backbone
from blurdm.models.entries import PublishedNetwork, Rules, State, depths, reflected, width

MARK = "encoders.0.0.trans1.norm1.body.weight"
RULES: Rules = (
    (r"^patch_embed\.proj\.", "into."),
    (r"^output\.", "out."),
    (r"^encoders\.(\d)\.", r"levels.\1."),
    (r"^middle_blks\.", "levels.3."),
    (r"^decoders\.(\d)\.", lambda m: f"levels.{int(m[1]) + 4}."),
    (r"^(ups|downs)\.(\d)\.body\.0\.", lambda m: f"{m[1][:-1]}.{m[2]}."),
    (r"^reduce_chan\.", "narrow."),
    (r"\.(\d+)\.trans([12])\.", lambda m: f".{2 * int(m[1]) + int(m[2]) - 1}."),
    (r"\.norm1\.body\.", ".norm."),
    (r"\.norm2\.body\.", ".ffn_norm."),
    (r"\.attn\.0\.mlp\.0\.", ".attention.gate."),
    (r"\.attn\.0\.kv\.", ".attention.fusion.linear."),
    (r"\.attn\.0\.qkv\.", ".attention.qkv.0."),
    (r"\.attn\.0\.qkv_dwconv\.", ".attention.qkv.1."),
    (r"\.attn\.0\.project_out\.", ".attention.narrow."),
    (r"\.attn\.0\.temperature$", ".attention.temperature"),
    (r"\.ffn\.0\.project_in\.", ".ffn.widen."),
    (r"\.ffn\.0\.dwconv\.", ".ffn.depthwise."),
    (r"\.ffn\.0\.project_out\.", ".ffn.narrow."),
)
LEVELS = ("encoders.0.", "encoders.1.", "encoders.2.", "middle_blks.", "decoders.0.", "decoders.1.", "decoders.2.")
TITLES = {32: "LoFormer-S", 36: "LoFormer-B", 48: "LoFormer-L"}


def published(state: State, with_prior: bool, released: bool) -> PublishedNetwork:
    channels = width(state, "patch_embed.proj.weight")
    size = Backbone(
        name="loformer",
        width=channels,
        blocks=depths(state, *LEVELS),
        dropout=0.0,
        inference=reflected(8) if with_prior else None,
    )
    return PublishedNetwork(TITLES.get(channels, "LoFormer") + (" of BlurDM" if with_prior else ""), size, RULES)
