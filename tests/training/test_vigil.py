"""When ranks count as hanging: silence, a stop that takes too long, and what is neither."""

import pytest

from blurdm.training import vigil
from blurdm.training.vigil import PAUSE_SECONDS, SILENT_SECONDS, STOP_SECONDS, Vigil


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(vigil, "time", clock)
    return clock


def wait(watched: Vigil, clock: Clock, seconds: float, stop: bool = False, heard: tuple[int, ...] = ()) -> str:
    """Look twice a second for so long, or until ranks hang; ranks ``heard`` are heard each time."""
    end = clock.now + seconds
    while clock.now < end:
        clock.now += PAUSE_SECONDS / 2
        for number in heard:
            watched.heard(number)
        watched.look(stop)
        if hung := watched.hung(lambda number: number != 2):
            return hung
    return ""


def test_a_silent_rank_hangs_unless_it_has_ended_or_was_never_heard(clock: Clock) -> None:
    watched = Vigil(4)
    for number in (0, 1, 2):
        watched.heard(number)
    assert not wait(watched, clock, SILENT_SECONDS - 5, heard=(0,))
    assert wait(watched, clock, 10, heard=(0,)).startswith("rank 1 of 4 gave no sign of life for 120 s")
    watched.heard(1)
    assert not wait(watched, clock, SILENT_SECONDS / 2, heard=(0,)) and 2 not in watched.silent


def test_a_stop_has_less_than_a_minute_and_names_who_is_silent(clock: Clock) -> None:
    watched = Vigil(2)
    watched.heard(1)
    assert not wait(watched, clock, STOP_SECONDS - 1, stop=True, heard=(0,)) and STOP_SECONDS < 60
    assert wait(watched, clock, 2, stop=True, heard=(0,)).startswith("rank 1 of 2 gave no sign of life for 4")
    busy = Vigil(2)
    assert wait(busy, clock, STOP_SECONDS + 1, stop=True, heard=(0, 1)) == "its 2 ranks had not saved 45 s later"


def test_a_pause_of_everything_is_no_silence(clock: Clock) -> None:
    watched = Vigil(1)
    watched.heard(0)
    clock.now += 3600
    watched.look(stop=True)
    assert not watched.hung(lambda number: True) and watched.stopping <= PAUSE_SECONDS
