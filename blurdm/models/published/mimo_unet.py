"""MIMO-UNet and MIMO-UNet+: of their authors, on values in [0, 1]; of BlurDM, on values around 0."""

from blurdm.core.config import Backbone
from blurdm.models.entries import PublishedNetwork, Rules, State, depths, reflected, width

MARK = "FAM1.merge.main.0.weight"
RULES: Rules = (
    (r"^Encoder\.(\d)\.layers\.", r"encoders.\1."),
    (r"^Decoder\.(\d)\.layers\.", r"decoders.\1.blocks."),
    (r"^Decoder\.(\d)\.kv\.", r"decoders.\1.fusion.linear."),
    (r"^feat_extract\.([012])\.main\.", r"into.\1."),
    (r"^feat_extract\.([34])\.main\.", lambda m: f"up.{int(m[1]) - 3}."),
    (r"^feat_extract\.5\.main\.0\.", "out."),
    (r"^Convs\.(\d)\.main\.", r"narrow.\1."),
    (r"^ConvsOut\.(\d)\.main\.0\.", r"coarse_out.\1."),
    (r"^AFFs\.(\d)\.conv\.0\.main\.", r"across.\1.0."),
    (r"^AFFs\.(\d)\.conv\.1\.main\.0\.", r"across.\1.1."),
    (r"^FAM1\.merge\.main\.0\.", "merge_coarse."),
    (r"^FAM2\.merge\.main\.0\.", "merge_middle."),
    (r"^SCM1\.conv\.main\.0\.", "shallow_coarse.mix."),
    (r"^SCM2\.conv\.main\.0\.", "shallow_middle.mix."),
    (r"^SCM1\.main\.(\d)\.main\.", r"shallow_coarse.body.\1."),
    (r"^SCM2\.main\.(\d)\.main\.", r"shallow_middle.body.\1."),
    (r"\.main\.0\.main\.0\.", ".body.0.0."),
    (r"\.main\.1\.main\.0\.", ".body.1."),
)


def published(state: State, with_prior: bool, released: bool) -> PublishedNetwork:
    (blocks,) = depths(state, "Encoder.0.layers.")
    size = Backbone(
        name="mimo_unet",
        width=width(state, "feat_extract.0.main.0.weight"),
        blocks=blocks,
        dropout=0.1 if with_prior or released else 0.0,
        centre=None if with_prior or released else 0.0,
        inference=reflected(8) if with_prior else None,
    )
    title = "MIMO-UNet+" if blocks == 20 else "MIMO-UNet"
    return PublishedNetwork(f"{title} of {'BlurDM' if with_prior or released else 'its authors'}", size, RULES)
