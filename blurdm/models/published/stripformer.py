"""Stripformer: its authors do not pad images of GoPro; BlurDM pads them to 32, before the prior."""

from blurdm.core.config import Backbone
from blurdm.models.entries import PublishedNetwork, Rules, State, reflected, width

MARK = "encoder.en_layer1_1.0.weight"
RULES: Rules = (
    (r"encoder\.en_layer(\d)_1\.0", lambda m: f"into.{int(m[1]) - 1}.0"),
    (r"encoder\.en_layer(\d)_(\d)\.", lambda m: f"encoders.{int(m[1]) - 1}.{int(m[2]) - 2}.body."),
    (r"Trans_block_(\d+)\.", lambda m: f"body.{int(m[1]) - 1}."),
    (r"decoder\.de_block_(\d+)\.", lambda m: f"decoder.{int(m[1]) - 1}."),
    (r"decoder\.de_layer3_1\.", "up.0."),
    (r"decoder\.de_layer2_2\.", "narrow."),
    (r"decoder\.de_layer2_1\.", "up.1."),
    (r"decoder\.de_layer1_3\.", "merge.body."),
    (r"decoder\.de_layer1_2\.", "last.body."),
    (r"decoder\.de_layer1_1\.", "out."),
    (r"\.attention_norm\.", ".norm."),
    (r"\.conv_input\.", ".split."),
    (r"\.(qkv_local|conv)_h\.", ".qkv_rows."),
    (r"\.(qkv_local|conv)_v\.", ".qkv_columns."),
    (r"\.fuse_out\.", ".fuse."),
    (r"\.ffn\.fc1\.", ".mlp.0."),
    (r"\.ffn\.fc2\.", ".mlp.2."),
    (r"\.PEG\.PEG\.", ".position."),
    (r"\.kv\.weight", ".fusion.linear.weight"),
)


def published(state: State, with_prior: bool, released: bool) -> PublishedNetwork:
    of_blurdm = with_prior or released
    size = Backbone(
        name="stripformer",
        width=width(state, MARK),
        blocks=(3, 6, 3),
        dropout=0.0,
        inference=reflected(32) if of_blurdm else None,
    )
    return PublishedNetwork(f"Stripformer of {'BlurDM' if of_blurdm else 'its authors'}", size, RULES)
