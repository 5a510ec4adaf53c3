"""The published costs beside the published PSNR on GoPro."""

import pandas as pd

from analysis.published import METHODS, Published

COLUMNS = ["name", "method", "psnr", "parameters", "macs", "seconds"]
DATA = "GoPro"


def published_costs(published: Published) -> pd.DataFrame:
    """COLUMNS, PSNR in dB on GoPro, costs in M, G and s (NaN where not stated); method: baseline, blurdm or other."""
    rows = []
    for name, costs in published.cost.numbers.items():
        for method in METHODS:
            cost = getattr(costs, method)
            psnr = getattr(published.main.numbers[name], method)[DATA].psnr
            rows.append((name, method, psnr, cost.parameters_m, cost.macs_g, cost.milliseconds / 1000))
    for name, other in published.other_diffusion.items():
        if not name.startswith("BlurDM"):  # one of the above
            rows.append((name, "other", other.psnr, other.parameters_m, other.macs_g, None))
    return pd.DataFrame(rows, columns=COLUMNS).astype({"seconds": float})
