"""The published costs beside the published PSNR on GoPro."""

from pathlib import Path

import pandas as pd

from blurdm.config_file import read_yaml

PUBLISHED = Path(__file__).with_name("published.yaml")
COLUMNS = ["name", "method", "psnr", "parameters", "macs", "seconds"]


def published_costs(path: Path = PUBLISHED) -> pd.DataFrame:
    """COLUMNS, PSNR in dB on GoPro, costs in M, G and s (NaN where not stated); method: baseline, blurdm or other."""
    read = read_yaml(path)
    rows = []
    for name, costs in read["cost"].items():
        if name == "source":
            continue
        for number, method in enumerate(("baseline", "blurdm")):
            figures = {"parameters": costs["parameters_m"][number], "macs": costs["macs_g"][number]}
            psnr = read["main"][name][method]["GoPro"]["psnr"]
            rows.append(
                {
                    "name": name,
                    "method": method,
                    "psnr": psnr,
                    **figures,
                    "seconds": costs["milliseconds"][number] / 1000,
                }
            )
    for name, other in read["other_diffusion"].items():
        if name != "source" and not name.startswith("BlurDM"):
            figures = {"parameters": other["parameters_m"], "macs": other["macs_g"]}
            rows.append({"name": name, "method": "other", "psnr": other["psnr"], **figures})
    return pd.DataFrame(rows, columns=COLUMNS)
