"""Work ahead of its turn: in order, no further ahead than asked for."""

import pytest

from blurdm.core.ahead import ahead, helpers, neighbours


@pytest.mark.parametrize("most", [0, 1, 3, 20])
def test_so_many_items_are_started_before_they_are_asked_for(most: int) -> None:
    started: list[int] = []

    def start(item: int) -> int:
        started.append(item)
        return item**2

    for number, (item, square) in enumerate(ahead(range(7), start, most)):
        assert (item, square) == (number, number**2)
        assert len(started) == min(number + 1 + most, 7)
    assert started == [*range(7)]


def test_neighbours_are_alike_and_not_too_many() -> None:
    words = ["ab", "cd", "ef", "g", "hi"]
    assert list(neighbours(words, len, 2)) == [["ab", "cd"], ["ef"], ["g"], ["hi"]]
    assert list(neighbours(words, len, 9)) == [["ab", "cd", "ef"], ["g"], ["hi"]]
    assert list(neighbours([], len, 9)) == []


def test_a_cpu_helps_itself_and_a_gpu_is_helped_by_all_cores() -> None:
    assert helpers("cpu", 1) == 1 and helpers("cpu", 3) == 3
    assert helpers("cuda:1", 1) >= 1 and helpers("cuda", 40) == 40
