"""Findings: sentences that read the tables of scores and differences, and that limit what follows from them."""

from analysis.article.facts import Facts
from analysis.article.parts import FigurePart, Paragraph, Part, TablePart, listed, reference
from analysis.tables.chain import PRIMARY, count
from analysis.tables.comparison import kind
from analysis.tables.table import Cell, TableRow
from analysis.verdicts import DECIDED, Verdict
from blurdm.core.arms import ARMS, BASELINE, INPUT, METHOD, METHODS, ORACLE
from blurdm.metrics.protocols import METRICS

UNIT, DIGITS, SCORE = METRICS[PRIMARY].unit, METRICS[PRIMARY].digits, METRICS[PRIMARY].title
COMPARED_WITH = "GoPro"  # of the published gain


def conclusion(facts: Facts) -> list[str]:
    """The scores of all methods, how many comparisons are decided, and what could have been found."""
    methods = [arm for arm in sorted(METHODS, key=(METHOD, *METHODS).index) if _score(facts, arm)]
    if not methods:
        return []
    first, *others = methods
    name = ARMS[first].title if first == METHOD else f"The {ARMS[first].title.lower()}"
    text = f"{name} restores to {_score(facts, first)} {UNIT} {SCORE}"
    text += "".join(f", the {ARMS[arm].title.lower()} to {_score(facts, arm)} {UNIT}" for arm in others)
    blurred = _score(facts, INPUT)
    text += f" (blurred input: {blurred} {UNIT})." if blurred else "."
    return [text, *decided(facts), *diffusion(facts), *power(facts)]


def decided(facts: Facts) -> list[str]:
    """A sentence on the comparisons in the primary metric: how many are decided, and which."""
    rows = [row for row in facts.differences if _verdict(row) is not None]
    if not rows:
        return []
    if {_verdict(row) for row in rows} == {Verdict.THESE_WEIGHTS}:
        return ["With one seed no comparison of methods can be decided: differences are those of these weights only."]
    found = [f"{row.label} ({row.cells['verdict'].text})" for row in rows if _verdict(row) in DECIDED]
    sample = f"With {count(facts.n_photos, 'test photo')} and {count(len(facts.seeds), 'seed')}"
    if not found:
        return [f"{sample}, none of the {count(len(rows), 'comparison')} is decided."]
    return [f"{sample}, {len(found)} of {count(len(rows), 'comparison')} {_are(len(found))} decided: {listed(found)}."]


def diffusion(facts: Facts) -> list[str]:
    """A sentence on what the diffusion adds to its own encoder's latent, on validation images."""
    gain, noise = (facts.cell("prior", f"chain__{METHOD}", name) for name in ("gain_zb", "eps_correlation"))
    if gain is None or gain.value is None or gain.low is None or gain.high is None:
        return []
    shown = "helps" if gain.low > 0 else "harms" if gain.high < 0 else "is not shown to help"
    text = (
        f"The diffusion itself {shown}: on validation images, its latent instead of its encoder's is worth"
        f" {gain.value:+.{DIGITS}f} [{gain.low:+.{DIGITS}f}, {gain.high:+.{DIGITS}f}] {UNIT}"
    )
    if noise is None or noise.value is None:
        return [f"{text}."]
    return [f"{text}, and its estimate of the noise correlates with the noise by {noise.text}."]


def power(facts: Facts) -> list[str]:
    """A sentence on the smallest gain over the baseline that would be found, beside the published gain."""
    row = next((row for row in facts.differences if row.id == f"{METHOD}-{BASELINE}-{PRIMARY}"), None)
    value = row.cells.get("detectable", Cell()).value if row else None
    if value is None:
        return []
    text = f"A gain of BlurDM over its baseline below about {value:.1f} {UNIT} would often be missed"
    gain = published_gain(facts)
    of = f" with this backbone on {COMPARED_WITH}"
    return [text + (f"; the paper reports {gain:.{DIGITS}f} {UNIT}{of}." if gain is not None else ".")]


def published_gain(facts: Facts) -> float | None:
    """Published gain of BlurDM over the chain's backbone in the primary metric (dB)."""
    name = str(facts.sections.get("backbone", {}).get("name"))
    value = facts.sources.published.value
    scores = [value("main", PRIMARY, dataset=COMPARED_WITH, backbone=name, method=m) for m in (METHOD, BASELINE)]
    return None if scores[0] is None or scores[1] is None else scores[0] - scores[1]


def results(facts: Facts) -> list[Part]:
    """Read the tables of scores and differences, then the figures."""
    pictures = [
        *facts.with_references("{figure} has the gain of every image by the strength of its blur.", figure="severity"),
        *facts.with_references("{figure} shows restorations and their errors.", figure="restorations"),
        *facts.with_references("{figure} shows where BlurDM loses most.", figure="failures"),
        *harmed(facts),
        *facts.with_references("{figure} follows the reverse process step by step.", figure="trajectory"),
    ]
    parts: list[Part] = [Paragraph(" ".join(scores))] if (scores := _scores(facts)) else []
    parts += [TablePart("main")]
    parts += [Paragraph(" ".join(tested))] if (tested := _tested(facts)) else []
    parts += [TablePart("differences"), FigurePart("differences")]
    prior = facts.with_references("{table} says what the latent of each network is worth to it.", table="prior")
    parts += [Paragraph(" ".join([*prior, *diffusion(facts)]))] if prior else []
    parts += [TablePart("prior"), TablePart("methods")]
    parts += [Paragraph(" ".join(pictures))] if pictures else []
    return [*parts, *map(FigurePart, ("severity", "restorations", "failures", "trajectory"))]


def _scores(facts: Facts) -> list[str]:
    table = facts.contents.tables.get("main")
    if table is None:
        return []
    sentences = []
    for column in (column for column in table.columns if column.id in METRICS):
        best = [row for row in table.rows if row.cells.get(column.id, Cell()).best and row.id in METHODS]
        if best:
            scores = ", ".join(f"{row.label} {row.cells[column.id].text}" for row in best)
            sentences.append(f"{METRICS[column.id].title} {scores}")
    text = [f"The best means in {reference('table', 'main')}: {'; '.join(sentences)}."] if sentences else []
    own, bound = (facts.cell("main", arm, PRIMARY) for arm in (METHOD, ORACLE))
    if own and bound and own.value is not None and bound.value is not None:
        means = "what a prior as good as that would change" if bound.value > own.value else "so it bounds nothing here"
        text.append(
            f"The oracle latent, which sees the sharp image, reaches {bound.text} {UNIT} {SCORE},"
            f" {bound.value - own.value:+.{DIGITS}f} {UNIT} from BlurDM: {means}. Its network is that of stage 1, which"
            " stage 3 trains on."
        )
    return text


def _tested(facts: Facts) -> list[str]:
    """The differences that were tested in the primary metric, each with its verdict."""
    rows = [row for row in facts.differences if row.cells.get("mean", Cell()).value is not None]
    if not rows:
        return []
    verdicts = {row.cells["verdict"].text for row in rows}
    alike = len(verdicts) == 1 and len(rows) > 1
    said = [f"{row.label} {_with_bounds(row.cells['mean'])}" for row in rows]
    if not alike:
        said = [f"{text}, {row.cells['verdict'].text}" for text, row in zip(said, rows, strict=True)]
    said += [f"each {verdicts.pop()}"] if alike else []
    text = [f"Paired differences in {SCORE} ({UNIT}; {reference('table', 'differences')}): {'; '.join(said)}."]
    seen = facts.with_references("{figure} shows them image by image.", figure="differences")
    seen += facts.with_references("{table} has all methods measured on these images.", table="methods")
    return [*text, *decided(facts), *seen]


def harmed(facts: Facts) -> list[str]:
    """Test images that BlurDM makes worse than its baseline and the blurred input; of the baseline without BlurDM."""
    if PRIMARY not in facts.rows:
        return []
    table = facts.rows.pivot_table(index=["scene", "image"], columns="arm", values=PRIMARY, observed=True)
    arm = METHOD if METHOD in table else BASELINE
    others = [other for other in (BASELINE, INPUT) if other in table and other != arm]
    if arm not in table or not others:
        return []
    worse = [f"the {ARMS[other].title.lower()} on {int((table[arm] < table[other]).sum())}" for other in others]
    images = count(len(table), "test image")
    return [f"In the mean over seeds, {ARMS[arm].title} is worse than {listed(worse)} of {images}."]


def validity(facts: Facts) -> list[Part]:
    """Limits of the conclusions, computed from the data."""
    seeds = len(facts.seeds)
    sentences = [f"The test set has {count(facts.n_photos, 'photo')}: conclusions about other photos rest on these."]
    if seeds < 2:
        sentences.append("With one seed, a difference is one of two files of weights, not of two methods.")
    else:
        sentences.append(
            f"Every method was trained {seeds} times; intervals cover the noise of training and of photos."
        )
    return [Paragraph(" ".join([*sentences, *_detectable(facts), *_scale(facts), *harmed(facts)]))]


def _detectable(facts: Facts) -> list[str]:
    cells = [row.cells["detectable"] for row in facts.differences if row.cells.get("detectable", Cell()).value]
    values = sorted(float(cell.value) for cell in cells if cell.value is not None)
    if not values:
        return []
    low, high = f"{values[0]:.{DIGITS}f}", f"{values[-1]:.{DIGITS}f}"
    found = f"{low} {UNIT}" if low == high else f"{low} to {high} {UNIT}, depending on the comparison"
    table = reference("table", "differences")
    return [f"The smallest {SCORE} difference found in 80 % of such experiments is {found} ({table})."]


def _scale(facts: Facts) -> list[str]:
    """Size of the trained network beside that of the published one."""
    name = str(facts.sections.get("backbone", {}).get("name"))
    millions = facts.sources.published.value("cost", "parameters_m", backbone=name, method=METHOD)
    cell = facts.cell("main", METHOD, "parameters")
    if millions is None or cell is None or cell.value is None:
        return []
    share = cell.value / millions
    if share > 0.99:
        return []
    return [f"The network has {cell.value:.2f} million parameters, {100 * share:.2g} % of the published one's."]


def _verdict(row: TableRow) -> Verdict | None:
    return kind(row.cells.get("verdict", Cell()).text)


def _score(facts: Facts, arm: str) -> str:
    """The mean of the primary metric as printed; empty without one."""
    cell = facts.cell("main", arm, PRIMARY)
    return cell.text if cell and cell.value is not None else ""


def _with_bounds(cell: Cell) -> str:
    return f"{cell.text} {cell.bounds}".strip()


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
