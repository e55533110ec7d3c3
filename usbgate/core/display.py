"""
Text of strangers, as it is shown: characters that are not seen, or change how others are seen, are escaped.
"""

from __future__ import annotations

import re

# Control characters, of which ESC commands a terminal; soft hyphen; zero-width characters; separators of lines and
# paragraphs; marks that turn the direction of writing, and tags.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)

_FORMULA = re.compile(r"[=+@\t\r-]")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+[.,]?[0-9]*|[.,][0-9]+)(?:[eE][+-]?[0-9]+)?")


def shown(text: str) -> str:
    """
    Return a text with each character that is not seen as an escape such as `\\u202e`.
    """
    return text if text.isprintable() else _UNSEEN.sub(_escape, text)


def shown_lines(text: str) -> str:
    """
    Do the same, but keep line ends and tabs.
    """
    return _UNSEEN.sub(lambda found: found[0] if found[0] in "\n\t" else _escape(found), text)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def defused(cell: str) -> str:
    """
    Return a cell of CSV with a `'` before it if a spreadsheet would take it for a formula, as anything that begins with
    one of `= + - @` and is no number.
    """
    return "'" + cell if _FORMULA.match(cell) and not _NUMBER.fullmatch(cell) else cell
