"""What a module of ``blurdm.models.published`` says of its network, and how it reads sizes from entries.

``MARK`` is an entry that no other network has. ``published(state, with_prior, released)`` gives the network's size and
conventions, and the rules that make our names of its entries. ``with_prior``: it has the fusion layers of BlurDM;
``released``: it was saved by BlurDM's code. Names, shapes and conventions are facts about the authors' files.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

from blurdm.core.config import Backbone, Inference

State = Mapping[str, Tensor]
Rules = Iterable[tuple[str, str | Callable[[re.Match[str]], str]]]


class PublishedNetwork(NamedTuple):
    """``title`` is for people; ``rules`` are patterns and what replaces them, applied in order."""

    title: str
    backbone: Backbone
    rules: Rules


def reflected(multiple: int) -> Inference:
    """The evaluation of a network whose images are reflected to multiples, before its prior sees them."""
    return Inference(padding=multiple, padding_mode="reflect", pooling_window=None)


def width(state: State, layer: str) -> int:
    """The channels that ``layer`` of a state puts out; 0 if it is no layer."""
    return int(state[layer].shape[0]) if layer in state and state[layer].ndim else 0


def depths(state: State, *prefixes: str) -> tuple[int, ...]:
    """How many different numbers follow each of the ``prefixes`` in the names of the entries."""
    return tuple(len({n.removeprefix(p).partition(".")[0] for n in state if n.startswith(p)}) for p in prefixes)
