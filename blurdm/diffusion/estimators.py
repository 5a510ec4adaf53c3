"""The blur-residual and noise estimators: one class, separate weights. (``models.fast`` batches the two.)"""

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
    """e_theta or eps_theta: a plain stack of linear layers, each followed by LeakyReLU 0.1, also the last.

    With ``skips`` and as many weights, a residual one: x_1 = z - condition + LeakyReLU(W_1 [condition, time, z]),
    x_k = x_{k-1} + LeakyReLU(W_k x_{k-1}), and a last layer without LeakyReLU. So z - condition, which at T is the
    noise of z_T and nothing else, reaches the last layer as it is; a stack no wider than z cannot carry it so.
    """

    def __init__(self, size: int, layers: int, last_init_std: float | None, skips: bool = False) -> None:
        super().__init__()
        self.skips = skips
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
        given = torch.cat([condition, z.new_full((*z.shape[:-1], 1), time), z], dim=-1)
        if not self.skips:
            return self.stack(given)
        first, *hidden, last = self.layers
        x = z - condition + F.leaky_relu(first(given), SLOPE)
        for layer in hidden:
            x = x + F.leaky_relu(layer(x), SLOPE)
        return last(x)
