"""Networks as their authors save and evaluate them: one module per backbone, as ``blurdm.models.entries`` describes."""
