r"""Plain text as LaTeX for every engine: what pdflatex has as it is written, any other letter as ``\unicodechar``."""

import hashlib
import re
import textwrap
import unicodedata

from analysis.names import code_point, visible

TYPEWRITER = r"{\usefont{OT1}{cmtt}{m}{n}\char%d}"  # straight, where the text font has curly ones
BREAK, APART = "\u200b", "\u200c"  # a line may end here; no ligature here. ``visible`` leaves none of them in a text.
WORDS = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "[": "{[}", "*": "{*}"}
WORDS |= {"`": TYPEWRITER % 18, '"': TYPEWRITER % 34, "“": "{``}", "”": "{''}", "‘": "{`}", "’": "{'}"}
WORDS |= {"–": "--", "—": "---", "…": r"\ldots{}", "•": r"\textbullet{}", "−": "$-$", "°": r"$^\circ$"}
WORDS |= {"¹": "$^1$", "²": "$^2$", "³": "$^3$", BREAK: r"\allowbreak{}", APART: r"\kern0pt{}"}
SIGNS = {
    "↑": "uparrow", "↓": "downarrow", "→": "rightarrow", "←": "leftarrow", "↔": "leftrightarrow", "⇒": "Rightarrow",
    "×": "times", "÷": "div", "±": "pm", "·": "cdot", "∞": "infty", "√": "surd", "∂": "partial", "∇": "nabla",
    "≤": "leq", "≥": "geq", "≠": "neq", "≈": "approx", "≡": "equiv", "¬": "neg", "∈": "in", "∀": "forall",
    "∑": "sum", "∏": "prod", "∫": "int", "∪": "cup", "∩": "cap", "⊂": "subset",
}  # fmt: skip
SIGNS |= {c: unicodedata.name(c).split()[-1].capitalize() for c in "ΓΔΘΞΠΣΦΨΩ"} | {"Λ": "Lambda", "λ": "lambda"}
SIGNS |= {c: unicodedata.name(c).split()[-1].lower() for c in "αβγδεζηθικμνξπρστυφχψω"}
SPECIAL = WORDS | {c: rf"\{c}" for c in "&%$#_{}"} | {c: f"${c}$" for c in "<>|"}
SPECIAL |= {c: rf"$\{name}$" for c, name in SIGNS.items()}
LATIN = frozenset("¡¿£§¶©ßæÆœŒøØłŁıÇçĢģĶķĻļŅņŖŗŞşŢţ")  # every LaTeX reads these as they are
ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": "."}
ACCENTS |= {"\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0328": "k"}
OGONEK = "\u0328"
HEBREW_TO_ARABIC = r"\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe\U00010800-\U00010fff"
RIGHT_TO_LEFT = re.compile(rf"([{HEBREW_TO_ARABIC}](?:[{HEBREW_TO_ARABIC}{BREAK} ]*[{HEBREW_TO_ARABIC}])?)")
LONGEST_WORD, LONGEST_LINE = 24, 48  # characters, before a line may be broken

LETTER = re.compile(r"\\unicodechar\{[uU]\}\{([0-9A-F]+)\}")
# By code point, unless the document says otherwise, as the report does where it has the fonts.
SPELLED = r"\providecommand{\unicodechar}[2]{\textbackslash #1#2\allowbreak}\providecommand{\righttoleft}[1]{#1}"


def escape(text: str) -> str:
    r"""Plain text in one line as LaTeX; ``SPELLED`` has to come before it if it has a ``\unicodechar``."""
    return _letters(visible(text))


def escape_lines(text: str) -> list[str]:
    """The same, broken into lines for a column of a table."""
    text = visible(text)
    longest = LONGEST_LINE // 3 if LETTER.search(_letters(text)) else LONGEST_LINE  # code points are long
    return [_letters(line) for line in textwrap.wrap(text, longest)] or [""]


def _letters(text: str) -> str:
    text = unicodedata.normalize("NFC", text)
    text = re.sub(r"(?<![\w.-])-(?=\d)", "−", text)
    text = re.sub(r"(?<=[-'])(?=[-'])|(?<=,)(?=,)", APART, text)
    text = re.sub(rf"([^\s-]{{{LONGEST_WORD}}})(?=[^\s-])", rf"\1{BREAK}", text)
    parts = ["".join(map(_letter, part)) for part in RIGHT_TO_LEFT.split(text)]
    return "".join(rf"\righttoleft{{{part}}}" if number % 2 else part for number, part in enumerate(parts))


def _letter(c: str) -> str:
    if c in SPECIAL:
        return SPECIAL[c]
    if c.isascii() or c in LATIN:
        return c
    base, *marks = list(unicodedata.normalize("NFD", c))
    if len(marks) == 1 and marks[0] in ACCENTS and base.isascii() and base.isalpha():
        if c < "\u0100":
            return c
        base = rf"\{base}" if base in "ij" else base  # without dot
        accented = rf"\{ACCENTS[marks[0]]}{{{base}}}"
        return rf"{{\fontencoding{{T1}}\selectfont{accented}}}" if marks[0] == OGONEK else accented
    prefix, digits = code_point(c)[1], code_point(c)[2:]
    return rf"\unicodechar{{{prefix}}}{{{digits}}}"


def plain_name(name: str) -> str:
    """``name`` where only letters, digits and "-" may stand."""
    plain = re.sub(r"[^A-Za-z0-9]", "-", name)
    exact = re.fullmatch(r"[A-Za-z0-9_-]+", name)
    return plain if exact else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
