"""The model that ``mlflow models serve`` runs: photo files in, restored photo files out, as base64 text.

MLflow stores this file as the model's code and the safetensors file as its artifact. Nothing is pickled.
"""

import base64
import binascii
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel

from blurdm import load
from blurdm.core.errors import InputError
from blurdm.restore.encoding import encode_photo
from blurdm.restore.photo import decode_photo, size_of

ARTIFACT, COLUMN = "model", "image"


class ServedModel(PythonModel):
    """Restores the column "image" of a table: photo files as base64 text. The format of each file is kept."""

    def load_context(self, context: Any) -> None:
        self.restorer = load(context.artifacts[ARTIFACT])

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """A table of the same length; InputError, whose text the server returns, if an entry is no photo."""
        return pd.DataFrame({COLUMN: [self.restore(text) for text in model_input[COLUMN]]})

    def restore(self, text: str) -> str:
        """One photo file as base64 text, restored."""
        try:
            content = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise InputError("image: should be the base64 text of a photo file") from None
        photo = decode_photo(content, "image", self.restorer.photo_budget())
        pixels = self.restorer.restore(photo.pixels, held=size_of(photo))
        return base64.b64encode(encode_photo(photo, pixels)).decode()


mlflow.models.set_model(ServedModel())
