"""NAFNet: zeros to multiples of 16, and means over windows (NAFNetLocal), with which its figures were measured."""

from blurdm.core.config import Backbone, Inference
from blurdm.models.entries import PublishedNetwork, Rules, State, depths, width

MARK = "intro.weight"
RULES: Rules = (
    (r"^intro\.", "into."),
    (r"^ending\.", "out."),
    (r"^downs\.", "down."),
    (r"^ups\.", "up."),
    (r"^middle_blks\.", "middle."),
    (r"^decoders\.(\d)\.", r"decoders.\1.blocks."),
    (r"\.norm1\.", ".spatial_norm."),
    (r"\.norm2\.", ".channel_norm."),
    (r"\.conv1\.", ".spread.0."),
    (r"\.conv2\.", ".spread.1."),
    (r"\.sca\.", ".attention."),
    (r"\.conv3\.", ".mix."),
    (r"\.conv4\.", ".widen."),
    (r"\.conv5\.", ".narrow."),
    (r"\.(beta|gamma)$", r".\1.weight"),
)
LEVELS = (*(f"encoders.{i}." for i in range(4)), "middle_blks.", *(f"decoders.{i}." for i in range(4)))
WINDOW = 384  # 1.5 times the side of a training crop


def published(state: State, with_prior: bool, released: bool) -> PublishedNetwork:
    size = Backbone(
        name="nafnet",
        width=width(state, MARK),
        blocks=depths(state, *LEVELS),
        dropout=0.0,
        inference=Inference(padding=16, padding_mode="zeros", pooling_window=WINDOW),
    )
    return PublishedNetwork("NAFNet", size, RULES)
