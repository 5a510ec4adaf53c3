"""``blurdm track register``: registers a finished run as an MLflow model, which ``mlflow models serve`` can serve."""

import importlib.metadata
import tempfile
from collections.abc import Callable
from pathlib import Path

from blurdm.core.addresses import public_uri
from blurdm.core.errors import InputError
from blurdm.core.limit import GaveUp, within
from blurdm.core.store import read_json
from blurdm.restore.models import export_model, find_model
from blurdm.tracking.client import MLFLOW, open_experiment, quiet
from blurdm.tracking.send import KEY_TAG, error_line

PACKAGE = Path(__file__).parent.parent
REQUIRED = ("torch", "numpy", "pydantic", "ruamel.yaml", "safetensors", "pillow", "rich", "pandas", "mlflow")


def register(folder: Path, uri: str, name: str, experiment: str, repo: Path) -> str:
    """Register the model of the finished run in ``folder`` as the next version of ``name`` and return its address.

    The MLflow model holds one safetensors file, this package's code, and the versions of its requirements. InputError
    for a run that restores no photos, or if MLflow refuses the model.
    """
    find_model(folder)
    key = read_json(folder / "result.json")["key"]
    try:
        with tempfile.TemporaryDirectory() as temporary:
            model = Path(temporary, "model")
            with quiet():
                save_model(folder, model, Path(temporary, "model.safetensors"))
            arguments = (model, uri, name, experiment, repo.absolute(), key)
            for is_registered, line in within(MLFLOW, create_version, *arguments):
                if is_registered:
                    return str(line)
                raise GaveUp(line)
        raise GaveUp("no answer")
    except InputError:
        raise
    except Exception as error:  # of any kind: it depends on the tracking server
        reason = str(error) if isinstance(error, GaveUp) else error_line(error, uri)
        raise InputError(f"MLflow at {public_uri(uri)}: not registered ({reason})") from None


def save_model(folder: Path, target: Path, weights: Path) -> None:
    """Write the run in ``folder`` as an MLflow model to ``target``; ``weights`` is a temporary file."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    from blurdm.tracking.served_model import ARTIFACT, COLUMN

    export_model(folder, weights)
    schema = Schema([ColSpec(DataType.string, COLUMN)])
    mlflow.pyfunc.save_model(
        target,
        python_model=str(PACKAGE / "tracking" / "served_model.py"),
        artifacts={ARTIFACT: str(weights)},
        code_paths=[str(PACKAGE)],
        pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in REQUIRED],
        signature=ModelSignature(schema, schema),
    )


def create_version(
    model: Path, uri: str, name: str, experiment: str, repo: Path, key: str, send: Callable[[tuple[bool, str]], None]
) -> None:
    """Upload the model folder to an MLflow run of its own and create a version of ``name`` that points to it.

    ``send`` gets True and the address of the version, or False and the reason.
    """
    from mlflow.exceptions import MlflowException

    try:
        with quiet(), open_experiment(uri, experiment, repo) as (client, experiment_id):
            run = client.create_run(experiment_id, run_name=f"model {key}")
            client.log_artifacts(run.info.run_id, str(model), "model")
            client.set_terminated(run.info.run_id, "FINISHED")
            try:
                client.create_registered_model(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            source = f"{client.get_run(run.info.run_id).info.artifact_uri}/model"
            version = client.create_model_version(name, source, run.info.run_id, tags={KEY_TAG: key})
            send((True, f"models:/{name}/{version.version}"))
    except Exception as error:  # of any kind: it depends on the tracking server
        send((False, error_line(error, uri)))
