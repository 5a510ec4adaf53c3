"""Connections to Ray: an existing cluster, or a local one that lasts as long as a sweep."""

import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray  # noqa: TID253

from blurdm.core.errors import InputError

# Ray installs its own handlers for these signals, but a stop is ours to handle.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # workers use the driver's Python, not a copy of its environment
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the new default; Ray warns if it is not set
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # only the old reporter can be silent
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # only runs of ASHA_STAGE report the metric
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the caller of the executor reports failures
}
REACH_SECONDS = 10.0
REPOSITORY = Path(__file__).parents[2]  # workers import these very files, from the shared file system


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to the cluster at ``address`` ("auto", "host:port"), or start a local one that ends with the context.

    InputError if there is no such cluster, or it refuses the connection.
    """
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    before = {name: os.environ.get(name) for name in QUIET}
    os.environ.update(QUIET)
    try:
        _connect(address)
        _restore(handlers)
        yield
    finally:
        ray.shutdown()
        _restore(handlers)
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _connect(address: str | None) -> None:
    paths = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    options: dict[str, Any] = {
        "logging_level": "ERROR",
        "log_to_driver": False,
        "runtime_env": {"env_vars": {"PYTHONPATH": paths, "PYTHONUTF8": "1"}},
    }
    if address is None:
        ray.init(address="local", include_dashboard=False, **options)
        return
    if "://" in address:
        raise InputError(f"--ray-address {address}: should be auto or host:port; a Ray Client connection does not do")
    try:
        if address != "auto":
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()
        ray.init(address=address, **options)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"--ray-address {address}: no Ray cluster there, or none that lets us in ({reason}); it should be auto or "
            "host:port, and RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH should be as on the cluster's nodes"
        ) from None


def _restore(handlers: Mapping[signal.Signals, Any]) -> None:
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)
