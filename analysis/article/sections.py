"""The sections of an article about a chain: every sentence is computed from its runs and tables."""

from collections.abc import Callable, Mapping
from typing import Any

from analysis.article.facts import Facts
from analysis.article.parts import Commands, Equation, FigurePart, Paragraph, Part, TablePart, listed, reference
from analysis.tables.chain import count
from analysis.tables.table import Cell
from blurdm.core.arms import ARMS, BASELINE, METHOD, arm_of
from blurdm.metrics.protocols import METRICS

BLURRED = arm_of(None)
PRIMARY = "psnr"


def abstract(facts: Facts) -> list[Part]:
    """State the data, the methods, their scores, and the verdicts."""
    split = facts.pairs[facts.pairs.split == "train"] if len(facts.pairs) else facts.pairs
    trained = [ARMS[arm].title for arm in facts.methods if ARMS[arm].stage and not ARMS[arm].group]
    text = f"{listed(trained)} ({facts.backbone}) {'was' if len(trained) == 1 else 'were'} trained"
    text += f" with {count(len(facts.seeds), 'seed')}"
    if len(split):
        text += f" on {count(len(split), 'pair')} of {count(split.scene.nunique(), 'scene')}"
    photos = facts.rows[["scene"]].drop_duplicates()
    text += (
        f" and measured on {count(facts.n_images, 'image')} of {count(len(photos), 'scene')} that no training or"
        f" selection saw ({facts.dataset})."
    )
    start, end = (facts.cell("main", arm, PRIMARY) for arm in (BLURRED, METHOD if facts.has_diffusion else BASELINE))
    if start and end and start.value is not None and end.value is not None:
        metric = METRICS[PRIMARY]
        text += (
            f" The blurred images have {start.text} {metric.unit} {metric.title}, restored ones"
            f" {end.text} {metric.unit} {end.bounds}."
        )
    return [Paragraph(text), *_verdicts(facts), *_sweeps(facts)]


def _verdicts(facts: Facts) -> list[Part]:
    """The differences that were tested in the primary metric, each with its verdict."""
    sentences = [
        f"{row.label}: {_with_bounds(row.cells['mean'])}, {row.cells['verdict'].text}"
        for row in facts.differences
        if row.cells.get("mean", Cell()).value is not None
    ]
    if not sentences:
        return []
    group = facts.differences[0].group
    return [Paragraph(f"Paired differences in {group}: {'; '.join(sentences)}.")]


def _with_bounds(cell: Cell) -> str:
    return f"{cell.text} {cell.bounds}".strip()


def _sweeps(facts: Facts) -> list[Part]:
    names = [table.name for table in facts.contents.ablations]
    if not names:
        return []
    numbers = listed([reference("table", name) for name in names])
    return [Paragraph(f"{count(len(names), 'sweep')} of settings: {numbers}.")]


def data(facts: Facts) -> list[Part]:
    """Splits, blur and digests."""
    pairs = facts.pairs
    if not len(pairs):
        return []
    splits = []
    for name, title in (("train", "training"), ("val", "validation"), ("test", "test")):
        part = pairs[pairs.split == name]
        if len(part):
            splits.append(f"{len(part)} {title} pairs of {count(part.scene.nunique(), 'scene')}")
    sizes = sorted({(int(w), int(h)) for w, h in zip(pairs.width, pairs.height, strict=True)})
    size = (
        f"{sizes[0][0]} x {sizes[0][1]} px"
        if len(sizes) == 1
        else f"{len(sizes)} sizes, the smallest {sizes[0][0]} x {sizes[0][1]} px"
    )
    text = f"The data set has {listed(splits)}, each of {size}."
    text += " Validation scenes are carved from the training data; a scene is in one part only."
    parts: list[Part] = [Paragraph(text)]
    if "exposure_px" in pairs and pairs.exposure_px.notna().any():
        length = pairs[pairs.split == "test"].exposure_px.dropna()
        low, middle, high = length.quantile([0.0, 0.5, 1.0])
        parts.append(
            Paragraph(f"The blur of the test images is {low:.1f} to {high:.1f} px long, {middle:.1f} px in the median.")
        )
    parts += [FigurePart("examples"), FigurePart("severity")]
    return [*parts, Paragraph(f"SHA-256 of the index of all pairs: {facts.digest}.")]


DIFFUSIONS = {
    "dual": "Two networks estimate the blur that a step added and its noise; the reverse process takes both away",
    "blur": "One network estimates the blur that a step added; the noise of a step is not estimated",
    "noise": "One network estimates the noise of a step, as in DDPM; blur is not estimated",
    "residual": "The exposure stays constant and a network estimates the residual, as in RDDM",
    "mlp": "Instead of a diffusion, one pass of a network makes the latent",
    "none": "There is no diffusion: the latent is that of the blurred image itself",
}


def method(facts: Facts) -> list[Part]:
    """BlurDM in a few sentences, with the equations that this chain computes."""
    if not facts.has_diffusion:
        return [Paragraph(f"{facts.backbone} was trained on pairs of blurred and sharp images, without prior.")]
    diffusion, latent = facts.sections["diffusion"], facts.sections["latent"]
    vectors = count(int(latent["tokens"]), "vector")
    forward = Equation(
        "forward",
        r"I_t = \frac{\alpha_{t-1}}{\alpha_t} I_{t-1} + \frac{1}{\alpha_t} e_t + \beta_t \epsilon_t, \qquad"
        r" I_T = B + \bar\beta_T \epsilon",
        "Iₜ = (αₜ₋₁/αₜ) Iₜ₋₁ + (1/αₜ) eₜ + βₜ εₜ, I_T = B + β̄_T ε",
    )
    reverse = Equation(
        "reverse",
        r"z_{t-1} = \frac{\alpha_t}{\alpha_{t-1}} z_t - \frac{1}{\alpha_{t-1}} e_\theta(z_t, t, z^B) -"
        r" \Bigl(\frac{\alpha_t \bar\beta_t}{\alpha_{t-1}} - \bar\beta_{t-1}\Bigr) \epsilon_\theta(z_t, t, z^B)",
        "zₜ₋₁ = (αₜ/αₜ₋₁) zₜ − (1/αₜ₋₁) e_θ(zₜ, t, zᴮ) − (αₜ β̄ₜ/αₜ₋₁ − β̄ₜ₋₁) ε_θ(zₜ, t, zᴮ)",
    )
    stages = (
        f"Stage 1 trains {facts.backbone} with the latent of an encoder that sees the sharp image too; stage 2 trains"
        " the diffusion to make that latent from the blurred image alone; stage 3 trains both together. The latent"
        f" scales and shifts the features of the backbone at {count(len(latent['fusion_levels']), 'level')}."
    )
    return [
        Paragraph(
            "BlurDM (arXiv 2512.03979) takes a blurred image B as the end of a longer exposure. Each of T steps exposes"
            " the image I longer, for which the exposure time α grows, and adds the light e of that time and noise ε"
            f" ({reference('equation', 'forward')})."
        ),
        forward,
        Paragraph(
            f"The process runs on {vectors} of {latent['size']} numbers per image, z, and starts at that of the blurred"
            f" image. {DIFFUSIONS[str(diffusion['type'])]} ({reference('equation', 'reverse')}), here with T ="
            f" {diffusion['steps']}, α from {diffusion['alpha_start']:g} to {diffusion['alpha_end']:g}, β from"
            f" {diffusion['beta_start']:g} to {diffusion['beta_end']:g}."
        ),
        reverse,
        Paragraph(stages),
        FigurePart("schedules"),
    ]


def settings(facts: Facts) -> list[Part]:
    """Refer to the table of settings that differ from the published recipe."""
    table = facts.contents.tables.get("settings")
    if table is None:
        return []
    text = (
        f"{reference('table', 'settings')} lists the {len(table.rows)} settings that differ from the published recipe."
    )
    return [Paragraph(text), TablePart("settings")]


def results(facts: Facts) -> list[Part]:
    """The chain's tables and pictures."""
    return [
        Paragraph(
            f"{reference('table', 'main')} has every method, {reference('table', 'differences')} paired differences."
        ),
        TablePart("main"),
        TablePart("differences"),
        TablePart("prior"),
        TablePart("methods"),
        FigurePart("differences"),
        FigurePart("restorations"),
        FigurePart("failures"),
        FigurePart("trajectory"),
    ]


def ablations(facts: Facts) -> list[Part]:
    """A table and a plot for each sweep."""
    drawn = {figure.name for figure in facts.contents.grids}
    parts: list[Part] = []
    for table in facts.contents.ablations:
        parts.append(Paragraph(f"{table.title} ({reference('table', table.name)})"))
        parts.append(TablePart(table.name))
        parts += [FigurePart(table.name)] if table.name in drawn else []
    return parts


def cost(facts: Facts) -> list[Part]:
    """Machines, hours, and what restoring costs."""
    machines = {_machine(origin) for origin in facts.provenances} - {""}
    text = f"Training took {facts.training_seconds / 3600:.2f} h in all, summed over stages and seeds"
    text += f", on {listed(sorted(machines))}." if machines else "; the machine was not recorded."
    parts: list[Part] = [Paragraph(text), TablePart("cost"), TablePart("training_budget")]
    return [*parts, FigurePart("quality_cost"), FigurePart("training")]


def _machine(origin: Mapping[str, Any]) -> str:
    """The processor or GPU that a run computed on, with its threads."""
    hardware = origin.get("hardware")
    if not isinstance(hardware, dict):
        return ""
    if origin.get("device", "cpu") != "cpu":
        return str(hardware.get("gpu") or origin["device"])
    return f"{hardware.get('cpu', 'a CPU')} ({count(int(origin.get('threads', 1)), 'thread')} per run)"


def published(facts: Facts) -> list[Part]:
    """Numbers of the paper, beside ours where the same was measured."""
    names = [table.name for table in facts.contents.group(("paper", "other_diffusion", "reference"))]
    if not names:
        return []
    text = "Published numbers were measured by their authors, with other seeds and machines; only ours have intervals."
    return [Paragraph(text), *(TablePart(name) for name in names)]


def validity(facts: Facts) -> list[Part]:
    """What limits the conclusions, computed from the data."""
    scenes, seeds = facts.rows.scene.nunique(), len(facts.seeds)
    sentences = [f"The test set has {count(scenes, 'scene')}: conclusions about other photos rest on these."]
    if seeds < 2:
        sentences.append("With one seed, a difference is one of two files of weights, not of two methods.")
    else:
        sentences.append(
            f"Every method was trained {seeds} times; intervals cover the noise of training and of photos."
        )
    if detectable := _detectable(facts):
        sentences.append(detectable)
    sentences += _scale(facts)
    harmed = _harmed(facts)
    return [Paragraph(" ".join([*sentences, *harmed]))]


def _detectable(facts: Facts) -> str:
    cells = [row.cells["detectable"] for row in facts.differences if row.cells.get("detectable", Cell()).value]
    if not cells:
        return ""
    values = sorted(float(cell.value) for cell in cells if cell.value is not None)
    digits, unit = METRICS[PRIMARY].digits, METRICS[PRIMARY].unit
    return (
        f"True differences below {values[0]:.{digits}f} to {values[-1]:.{digits}f} {unit} would often not be found"
        f" ({reference('table', 'differences')})."
    )


def _scale(facts: Facts) -> list[str]:
    """How the trained network compares in size with the published one."""
    name = str(facts.sections.get("backbone", {}).get("name"))
    millions = facts.sources.published.value("cost", "parameters_m", backbone=name, method=METHOD)
    cell = facts.cell("cost", f"chain-{METHOD}", "parameters") or facts.cell("main", METHOD, "parameters")
    if millions is None or cell is None or cell.value is None:
        return []
    own = cell.value * 1e6 if cell.value < 1e3 else cell.value
    share = own / (1e6 * millions)
    if share > 0.99:
        return []
    return [f"The network has {own / 1e6:.2f} million parameters, {100 * share:.2g} % of the published one's."]


def _harmed(facts: Facts) -> list[str]:
    """Test images that restoration makes worse."""
    if PRIMARY not in facts.rows:
        return []
    table = facts.rows.pivot_table(index=["scene", "image"], columns="arm", values=PRIMARY, observed=True)
    arm = METHOD if METHOD in table else BASELINE
    if arm not in table or BLURRED not in table:
        return []
    worse = int((table[arm] < table[BLURRED]).sum())
    images = count(len(table), "test image")
    sentence = f"{ARMS[arm].title} makes {worse} of {images} worse than the blurred input, in the mean over seeds."
    return [sentence]


def reproduce(facts: Facts) -> list[Part]:
    """Commands that make all of it again, and what it was made with."""
    packages = {f"{name} {version}" for o in facts.provenances for name, version in (o.get("packages") or {}).items()}
    revisions = sorted(
        {str(origin.get("git_revision"))[:12] for origin in facts.provenances if origin.get("git_revision")}
    )
    text = "These commands make the runs and the report again, show what is behind a number, and recompute all of them."
    if revisions:
        text += f" Code revision: {', '.join(revisions)}."
    if packages:
        text += f" Packages: {', '.join(sorted(packages))}."
    lines = ("dvc repro track", "python -m analysis.trace TABLE ROW COLUMN", "python -m analysis.verify reports/")
    return [Paragraph(text), Commands(lines)]


SECTIONS: dict[str, Callable[[Facts], list[Part]]] = {
    "Abstract": abstract,
    "Data": data,
    "Method": method,
    "Settings": settings,
    "Results": results,
    "Ablations": ablations,
    "Cost": cost,
    "Beside published numbers": published,
    "Threats to validity": validity,
    "How to reproduce": reproduce,
}
