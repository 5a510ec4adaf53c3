"""Programs that a test needs besides Python packages."""

import os
import shutil

import pytest

REQUIRE = "BLURDM_REQUIRE_TOOLS"


def require(*commands: str) -> None:
    """Skip the test where a command is not installed; fail it there with BLURDM_REQUIRE_TOOLS set, as CI has it."""
    missing = [command for command in commands if shutil.which(command) is None]
    if not missing:
        return
    text = f"not installed: {', '.join(missing)}"
    if os.environ.get(REQUIRE):
        pytest.fail(f"{text}, although {REQUIRE} is set")
    pytest.skip(text)
