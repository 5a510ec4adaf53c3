r"""Names are any text that people write: how they are shown so that different names never read alike, and are inert."""

import re
import unicodedata

INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")  # letters and marks without ink, beside Cf
SELECTORS = (range(0x180B, 0x1810), range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))  # of variants: no ink either
AMBIGUOUS = re.compile(r"\\(?=u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8})|^ | $|(?<= ) ")  # would read like another text

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?:\Z|[;\t\r\n])"
CELL = rf"(?:^|(?<=[;\t\r\n]))(?!{NUMBER})"  # starts there, where a semicolon or a tab separates as well
FORMULA = re.compile(rf"{CELL}(?='* *[=+\-@＝＋－＠\t\r\n])")
INERT = re.compile(rf"{CELL}'(?='* *[=+\-@＝＋－＠\t\r\n])")


def visible(text: str) -> str:
    r"""``text`` in one line, what cannot be seen as its code point (``\u200B``); different texts stay different."""
    text = AMBIGUOUS.sub(lambda match: code_point(match[0]), text)
    start = unicodedata.category(text[0])[0] == "M" if text else False  # a mark without its letter
    return "".join(code_point(c) if _hidden(c) or (start and i == 0) else c for i, c in enumerate(text))


def _hidden(c: str) -> bool:
    return not c.isprintable() or c in INVISIBLE or any(ord(c) in selectors for selectors in SELECTORS)


def code_point(c: str) -> str:
    r"""A character as ``\u200B`` or ``\U0001F600``."""
    return rf"\u{ord(c):04X}" if ord(c) < 0x10000 else rf"\U{ord(c):08X}"


def prose(text: str) -> str:
    """A text of several lines in one."""
    return " ".join(text.split())


def inert(text: str) -> str:
    """``text`` for a cell of a CSV file: an apostrophe stands before what a spreadsheet would take for a formula."""
    return FORMULA.sub("'", text)


def written(cell: str) -> str:
    """The text that ``inert`` made this cell of."""
    return INERT.sub("", cell)
