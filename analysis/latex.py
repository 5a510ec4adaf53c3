"""Plain text as LaTeX, and the environment that a table stands in."""

import re
import unicodedata

WORDS = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "[": "{[}", "−": "$-$"}
SIGNS = {"↑": "uparrow", "↓": "downarrow", "→": "rightarrow", "×": "times", "∞": "infty", "Δ": "Delta"}
SPECIAL = WORDS | {c: rf"\{c}" for c in "&%$#_{}"} | {c: f"${c}$" for c in "<>|"}
SPECIAL |= {c: rf"$\{name}$" for c, name in SIGNS.items()} | {"–": "--"}


def escape(text: str) -> str:
    """Plain text as LaTeX: special characters, arrows and other signs, Greek letters, and minus signs of numbers."""
    escaped = "".join(SPECIAL.get(c) or _letter(c) for c in text)
    return re.sub(r"(?<![\w.-])-(?=\d)", "$-$", escaped)


def sentence(title: str) -> str:
    """With a full stop, unless it ends in such already."""
    return title if title.endswith((".", "?", "!")) else f"{title}."


def _letter(c: str) -> str:
    """What LaTeX sets without further packages: Latin letters as they are, Greek ones as maths, "?" for the rest."""
    if ord(c) < 0x250:
        return c
    name = unicodedata.name(c, "").split()
    if name[:3] == ["GREEK", "SMALL", "LETTER"] and len(name) == 4 and name[3] != "OMICRON":
        return rf"$\{name[3].lower().replace('lamda', 'lambda')}$"
    return "?"


def table_environment(title: str, note: str, label: str, body: list[str]) -> str:
    r"""A table environment to \input, the note below the table; needs \usepackage{booktabs,graphicx}."""
    lines = [r"% needs \usepackage{booktabs,graphicx}", r"\begin{table}[htbp]", r"\centering\footnotesize"]
    lines += [
        rf"\caption{{{escape(sentence(title))}}}",
        rf"\label{{tab:{re.sub(r'[^A-Za-z0-9]', '-', label)}}}",
        r"\vspace{4pt}",
        r"\setlength{\tabcolsep}{2.5pt}",
    ]
    small = rf"\begin{{minipage}}{{\linewidth}}\scriptsize {escape(note)}\end{{minipage}}"
    return "\n".join([*lines, *body, "", r"\vspace{4pt}", small, r"\end{table}", ""])
