"""
What TLS says went wrong. This needs no pyOpenSSL, whose errors it spells.
"""

from __future__ import annotations


class TlsFailed(Exception):
    """
    TLS failed; the text says why, and begins with `TLS: `.
    """


def spell_tls_error(error: BaseException, authorities: str) -> str | None:
    """
    Return why TLS failed as one line; None if it is no error of OpenSSL.

    Args:
        error: The error.
        authorities: The CAs that are trusted, as `a CA of mqtt.ca`.
    """
    if not type(error).__module__.startswith("OpenSSL"):
        return None
    # A list of tuples of the library, the function and the reason.
    reasons = [each[-1] for each in error.args[0]] if error.args and isinstance(error.args[0], list) else []
    hint = f": is it signed by {authorities}, and valid now?" if "certificate verify failed" in reasons else ""
    return f"TLS: {', '.join(reasons) or 'failed'}{hint}"
