"""Programs and weights that a test needs besides Python packages."""

import os
import shutil

import pytest

from blurdm.metrics.protocols import available

REQUIRE = "BLURDM_REQUIRE_TOOLS"


def require(*commands: str) -> None:
    """Skip the test where a command is not installed; fail it there with BLURDM_REQUIRE_TOOLS set, as CI has it."""
    missing = [command for command in commands if shutil.which(command) is None]
    if missing:
        give_up(f"not installed: {', '.join(missing)}")


def require_weights(metric: str) -> None:
    """The same for the weights of a metric, which ``make weights`` fetches."""
    if not available(metric):
        give_up(f"no weights of {metric} on this machine")


def give_up(text: str) -> None:
    """Skip the test for this reason, or fail it as ``require`` does."""
    if os.environ.get(REQUIRE):
        pytest.fail(f"{text}, although {REQUIRE} is set")
    pytest.skip(text)
