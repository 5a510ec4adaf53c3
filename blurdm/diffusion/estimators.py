"""The blur-residual and noise estimators: one class, separate weights."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.1


class NormalLinear(nn.Linear):
    """A linear layer with weights from N(0, std^2) and zero bias; ``std`` None keeps PyTorch's initial weights."""

    std: float | None = None

    def __init__(self, inputs: int, outputs: int, bias: bool, std: float | None) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.std = std
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.std is None:
            super().reset_parameters()
            return
        nn.init.normal_(self.weight, std=self.std)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Estimator(nn.Module):
    """e_theta or eps_theta: a plain stack of linear layers, each followed by LeakyReLU 0.1, also the last."""

    def __init__(self, size: int, layers: int, last_init_std: float | None) -> None:
        super().__init__()
        stack: list[nn.Module] = []
        for index in range(layers):
            std = last_init_std if index == layers - 1 else None
            stack += [NormalLinear(2 * size + 1 if index == 0 else size, size, True, std), nn.LeakyReLU(SLOPE)]
        self.stack = nn.Sequential(*stack)

    @property
    def layers(self) -> list[nn.Linear]:
        return [layer for layer in self.stack if isinstance(layer, nn.Linear)]

    def forward(self, condition: Tensor, time: float, z: Tensor) -> Tensor:
        """The estimate for state ``z`` at ``time`` t/T, given the blur latent; all (B, size) or (B, tokens, size)."""
        return self.stack(torch.cat([condition, z.new_full((*z.shape[:-1], 1), time), z], dim=-1))


def given(condition: Tensor, estimators: Sequence[Estimator]) -> Callable[[float, Tensor], tuple[Tensor, ...]]:
    """(time, z) -> what each of the ``estimators`` says, computed together, for an image whose ``condition`` is known.

    The same function as calling them one by one; but one product per layer serves all of them, and what the first
    layer makes of the condition is computed once and not in every step.
    """
    layers = list(zip(*(estimator.layers for estimator in estimators), strict=True))
    weights = [torch.stack([layer.weight.mT for layer in same]) for same in layers]  # (estimators, inputs, outputs)
    biases = [torch.stack([layer.bias for layer in same])[:, None] for same in layers]
    size = condition.shape[-1]
    of_condition, of_time, of_z = weights[0].split([size, 1, size], dim=1)
    rows = condition.reshape(1, -1, size).expand(len(estimators), -1, -1)
    known = torch.baddbmm(biases[0], rows, of_condition)

    def estimate(time: float, z: Tensor) -> tuple[Tensor, ...]:
        x = torch.baddbmm(known + time * of_time, z.reshape(1, -1, size).expand(len(estimators), -1, -1), of_z)
        for weight, bias in zip(weights[1:], biases[1:], strict=True):
            x = torch.baddbmm(bias, F.leaky_relu(x, SLOPE), weight)
        return F.leaky_relu(x, SLOPE).view(-1, *z.shape).unbind()

    return estimate
