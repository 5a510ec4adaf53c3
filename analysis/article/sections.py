"""The sections of an article about a chain: every sentence is computed from its runs and tables."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from analysis.article.facts import Facts
from analysis.article.findings import conclusion, results, validity
from analysis.article.parts import Commands, Equation, FigurePart, Paragraph, Part, TablePart, listed, reference
from analysis.article.references import references
from analysis.tables.chain import count, joined, same_steps, warm_up
from analysis.tables.cost import COSTS
from blurdm.core.arms import ARMS, BASELINE, METHOD, ORACLE
from blurdm.metrics.protocols import PROTOCOLS

TERMS = (
    "A pair is a blurred image with its sharp one; images of one scene (in tables: photo) resemble each other, so"
    " statistics count scenes."
)


def abstract(facts: Facts) -> list[Part]:
    """State the data, the methods, and what was found."""
    split = facts.pairs[facts.pairs.split == "train"] if len(facts.pairs) else facts.pairs
    trained = [ARMS[arm].title for arm in facts.methods if ARMS[arm].stage and not ARMS[arm].group]
    text = f"{listed(trained)} ({facts.backbone}) {'was' if len(trained) == 1 else 'were'} trained"
    text += f" with {count(len(facts.seeds), 'seed')}"
    if len(split):
        text += f" on {count(len(split), 'pair')} of {count(split.scene.nunique(), 'scene')}"
    text += (
        f" and measured on {count(facts.n_images, 'image')} of {count(facts.n_photos, 'photo')} that no training or"
        f" selection saw. {_origin(facts)}"
    )
    found = " ".join(conclusion(facts))
    return [Paragraph(text), *([Paragraph(found)] if found else []), *_sweeps(facts)]


def _sweeps(facts: Facts) -> list[Part]:
    names = [table.name for table in facts.contents.ablations]
    if not names:
        return []
    numbers = listed([reference("table", name) for name in names])
    return [Paragraph(f"{count(len(names), 'sweep')} of settings: {numbers}.")]


def data(facts: Facts) -> list[Part]:
    """Splits, origin of the images, blur and digest."""
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
    text = [
        f"The data have {listed(splits)}, each of {size}. {TERMS}",
        _origin(facts),
        "Validation scenes are carved from the training data; a scene is in one part only.",
        *_blur(pairs),
        *facts.with_references("{figure} shows examples.", figure="examples"),
    ]
    digest = f"SHA-256 of the index of all pairs, of which tables show the start as data digest: {facts.digest}."
    return [Paragraph(" ".join(text)), FigurePart("examples"), Paragraph(digest)]


def _origin(facts: Facts) -> str:
    """Tell if the test images are a published test set."""
    complete, layout = facts.dataset
    if complete:
        return f"The test images are the test set of {complete}, all of it."
    if not layout:
        return "The data set is not a published one."
    if facts.is_computed:
        return f"The data set is not {layout}: only the layout of its folders is {layout}'s."
    return f"The test images are not the complete test set of {layout}, whose folder layout they have."


def _blur(pairs: pd.DataFrame) -> list[str]:
    """Length of the blur, which only the manifest of computed blur has."""
    if "exposure_px" not in pairs:
        return []
    lengths = []
    for split, title in (("train", "training"), ("test", "test")):
        length = pairs[pairs.split == split].exposure_px.dropna().astype(float)
        if len(length):
            low, middle, high = length.quantile([0.0, 0.5, 1.0])
            lengths.append(f"{low:.1f} to {high:.1f} px in {title} images (median {middle:.1f} px)")
    if not lengths:
        return []
    made = "The blur was computed: sharp photos, averaged along the path of a camera that moves while it exposes."
    return [made, f"The path has a length of {listed(lengths)}."]


FORWARD = Equation(
    "forward",
    r"I_t = \frac{\alpha_{t-1}}{\alpha_t} I_{t-1} + \frac{1}{\alpha_t} e_t + \beta_t \epsilon_t, \qquad"
    r" I_T = B + \bar\beta_T \epsilon",
    "Iₜ = (αₜ₋₁/αₜ) Iₜ₋₁ + (1/αₜ) eₜ + βₜ εₜ, I_T = B + β̄_T ε",
)
REVERSE = Equation(
    "reverse",
    r"z_{t-1} = \frac{\alpha_t}{\alpha_{t-1}} z_t - \frac{1}{\alpha_{t-1}} e_\theta(z_t, t, z^B) -"
    r" \left(\frac{\alpha_t \bar\beta_t}{\alpha_{t-1}} - \bar\beta_{t-1}\right) \epsilon_\theta(z_t, t, z^B)",
    "zₜ₋₁ = (αₜ/αₜ₋₁) zₜ − (1/αₜ₋₁) e_θ(zₜ, t, zᴮ) − (αₜ β̄ₜ/αₜ₋₁ − β̄ₜ₋₁) ε_θ(zₜ, t, zᴮ)",
)
MEANT = {
    BASELINE: "Baseline: the backbone alone.",
    "direct": "Direct control: the backbone with an encoder that makes its latent from the blurred image in one pass,"
    " without oracle and diffusion.",
    ORACLE: "Oracle latent: the model of stage 1, whose encoder sees the sharp image: a bound for priors.",
    "blurdm_foreign": "Mismatched latent: a model restores an image with the latent of another photo instead of its"
    " own; what it loses is what the latent tells of the image.",
}
DIFFUSIONS = {
    "dual": "Two networks estimate the blur that a step added and its noise; the reverse process takes both away",
    "blur": "One network estimates the blur that a step added; the noise of a step is not estimated",
    "noise": "One network estimates the noise of a step, as in DDPM; blur is not estimated",
    "residual": "The exposure stays constant and a network estimates the residual, as in RDDM",
    "mlp": "Instead of a diffusion, one pass of a network makes the latent",
    "none": "There is no diffusion: the latent is that of the blurred image itself",
}


def method(facts: Facts) -> list[Part]:
    """BlurDM in a few sentences, with the equations that this chain computes, and what it is compared with."""
    compared = [Paragraph(" ".join(MEANT[arm] for arm in facts.methods if arm in MEANT))]
    if not facts.has_diffusion:
        return [Paragraph(f"{facts.backbone} was trained on pairs of blurred and sharp images."), *compared]
    diffusion, latent = facts.sections["diffusion"], facts.sections["latent"]
    vectors = count(int(latent["tokens"]), "vector")
    stages = (
        f"Stage 1 trains {facts.backbone} with the latent of an encoder that sees the sharp image too; stage 2 trains"
        " the diffusion to make that latent from the blurred image alone; stage 3 trains both together. The latent"
        f" scales and shifts the features of the backbone at {count(len(latent['fusion_levels']), 'level')}."
    )
    return [
        Paragraph(
            "BlurDM (arXiv 2512.03979) models the blurred image B as the last of T steps of a lengthening exposure."
            " Each step takes the image I from one exposure time α to the next, adds the light e of that time, and adds"
            " noise ε of standard deviation β; β with a bar is the noise of all steps so far"
            f" ({reference('equation', 'forward')})."
        ),
        FORWARD,
        Paragraph(
            f"The process runs on a latent z, {vectors} of {latent['size']} numbers per image, and starts at that of"
            f" the blurred image, z with index B. {DIFFUSIONS[str(diffusion['type'])]}"
            f" ({reference('equation', 'reverse')}, where estimates have the index θ), here with"
            f" T = {diffusion['steps']}, α from {diffusion['alpha_start']:g} to {diffusion['alpha_end']:g}, β from"
            f" {diffusion['beta_start']:g} to {diffusion['beta_end']:g}."
        ),
        REVERSE,
        Paragraph(" ".join([stages, *facts.with_references("{figure} has the schedules.", figure="schedules")])),
        *compared,
        FigurePart("schedules"),
    ]


def settings(facts: Facts) -> list[Part]:
    """Training, its data, the metric protocol, and the settings that differ from the published recipe."""
    section, table = facts.sections.get("data", {}), facts.contents.tables.get("settings")
    text = [same_steps(facts.rows), warm_up(facts.sections, facts.methods)]
    if {"batch_size", "crop"} <= section.keys():
        side = section["crop"]
        text.append(f"A step sees {count(int(section['batch_size']), 'crop')} of {side} x {side} px.")
    for name in dict.fromkeys(facts.rows.protocol.astype(str)):
        text.append(f"Metric protocol '{name}': {PROTOCOLS[name].note}." if name in PROTOCOLS else "")
    if table is not None:
        number = reference("table", "settings")
        text.append(f"{number} lists the {count(len(table.rows), 'setting')} that differ from the published recipe.")
    return [Paragraph(joined(text)), TablePart("settings")]


def ablations(facts: Facts) -> list[Part]:
    """A table and a plot for each sweep."""
    drawn = {figure.name for figure in facts.contents.grids}
    parts: list[Part] = []
    for table in facts.contents.ablations:
        shown = [reference("table", table.name)]
        shown += [reference("figure", table.name)] if table.name in drawn else []
        parts += [Paragraph(f"{table.title} ({', '.join(shown)})"), TablePart(table.name)]
        parts += [FigurePart(table.name)] if table.name in drawn else []
    return parts


def cost(facts: Facts) -> list[Part]:
    """Machines, hours, and what restoring costs."""
    machines = {_machine(origin) for origin in facts.provenances} - {""}
    text = f"Training took {facts.training_seconds / 3600:.2f} h in all, summed over stages and seeds"
    text += f", on {listed(sorted(machines))}." if machines else "; the machine was not recorded."
    sentences = [
        text,
        *facts.with_references("{table} has the time of every method.", table="training_budget"),
        *facts.with_references("{figure} has the validations while training.", figure="training"),
        *_added(facts),
        *facts.with_references("{figure} has quality against cost.", figure="quality_cost"),
    ]
    tables = [TablePart(name) for name in ("cost", "training_budget")]
    return [Paragraph(" ".join(sentences)), *tables, FigurePart("training"), FigurePart("quality_cost")]


def _added(facts: Facts) -> list[str]:
    """Cost that BlurDM adds to its baseline, in units that do not depend on the load of a machine."""
    added = []
    for column in ("parameters", "macs"):
        own, base = (facts.cell("main", arm, column) for arm in (METHOD, BASELINE))
        if own and base and own.value is not None and base.value:
            figure = COSTS[column]
            change = 100 * (own.value / base.value - 1)
            added.append(f"{own.text} instead of {base.text} {figure.unit} {figure.title} ({change:+.0f} %)")
    if not added:
        return []
    table = reference("table", "cost" if "cost" in facts.contents.tables else "main")
    return [f"BlurDM has {listed(added)} ({table}); these are the same on every machine, unlike latencies."]


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
    text += f" They are in {listed([reference('table', name) for name in names])}."
    return [Paragraph(text), *(TablePart(name) for name in names)]


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
    config = facts.sources.config
    made = [f"{start} --config {config}.yaml" for start in MAKE_REPORT] if config else ["dvc repro track"]
    sweeps = [f"python experiments/sweep.py --grid {table.name}" for table in facts.contents.ablations]
    checks = ["python -m analysis.trace TABLE ROW COLUMN", f"python -m analysis.verify reports/{config}"]
    return [Paragraph(text), Commands((*sweeps, *made, *checks))]


MAKE_REPORT = ("blurdm run measure", "python -m analysis.build", "python -m analysis.report")
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
    "References": references,
}
