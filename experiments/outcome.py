"""How a sweep ended: what failed, which rows are missing and why, and the exit code."""

import sys
from collections.abc import Sequence
from pathlib import Path

from blurdm.core.errors import one_line
from blurdm.core.graph import Failure
from blurdm.core.ledger import read_ledger, runs_root, state

BROKEN, INCOMPLETE = 1, 2
MAX_NAMED = 10  # rows
UNEXPLAINED = "no result.json, and no run says why"


def report_outcome(ledger: Path, failures: Sequence[Failure]) -> int:
    """Print each of ``failures`` but those that follow from others, and one line on missing rows; return the exit code.

    A row is there if every one of its runs has its ``result.json``, whatever its executor said. 0: all rows are there;
    INCOMPLETE: not all, for reasons that are one line each; BROKEN: a run ended with an error of the program.
    """
    code = report_failures(failures)
    missing = missing_rows(ledger)
    if missing:
        print(f"sweep: {missing}", file=sys.stderr)
    return code or (INCOMPLETE if missing else 0)


def report_failures(failures: Sequence[Failure]) -> int:
    """Print each of ``failures`` that has a cause of its own; return the exit code, 0 if there are none."""
    for failure in failures:
        if not failure.message.startswith("needs "):
            message = one_line(failure.message) if failure.expected else failure.message
            print(f"sweep: {failure.run.stage} {failure.run.key}: {message}", file=sys.stderr)
    if any(not failure.expected for failure in failures):
        return BROKEN
    return INCOMPLETE if failures else 0


def missing_rows(path: Path) -> str:
    """One line that names the rows of the ledger at ``path`` without a result, and why; empty if all are there."""
    ledger, root = read_ledger(path), runs_root(path)
    states = {row.name: state(ledger, row, root).status for row in ledger.rows}
    reasons = {name: s.replace("missing", UNEXPLAINED) for name, s in states.items() if s != "done"}
    if not reasons:
        return ""
    named = [f"{name}: {status}" for name, status in list(reasons.items())[:MAX_NAMED]]
    more = [f"and {len(reasons) - MAX_NAMED} more"] if len(reasons) > MAX_NAMED else []
    verb = "is" if len(reasons) == 1 else "are"
    return one_line(f"{len(reasons)} of {len(states)} rows {verb} missing: {'; '.join([*named, *more])}")
