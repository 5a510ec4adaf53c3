"""Addresses of servers and databases without the secrets in them, for screens, files and error messages."""

import base64
import os
import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

HIDDEN = "***"
SECRET_NAME = re.compile("PASSWORD|PASSWD|TOKEN|SECRET|ACCESS_KEY|TRACKING_USERNAME")  # of an environment variable
SHORT = 4  # characters: a shorter secret is hidden only where it stands alone


def public_uri(uri: str) -> str:
    """``uri`` without user, password, query and fragment; its scheme alone where it is unclear which part is which."""
    scheme, mark, rest = uri.partition("://")
    if scheme in ("sqlite", "file") and rest.startswith("/"):
        return uri.partition("?")[0]  # a path, which may hold any other character
    if not mark:
        return HIDDEN if "@" in uri else uri.partition("?")[0]
    try:
        parts = urlsplit(uri)
    except ValueError:
        return f"{scheme}://{HIDDEN}"
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":  # such as of a password with a slash in it
        return f"{scheme}://{HIDDEN}"
    return f"{scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.partition(';')[0]}"


def without_secrets(text: str, uri: str = "") -> str:
    """``text``, such as an exception's, without the secrets of ``uri`` and of the environment, however encoded."""
    text = re.sub(r"(\w://)[^\s'\"]*@", r"\1", text.replace(uri, public_uri(uri)) if uri else text)
    forms = {form for secret in _secrets(uri) for form in _forms(secret)}
    for form in sorted(forms, key=len, reverse=True):
        pattern = re.escape(form) if len(form) >= SHORT else rf"(?<!\w){re.escape(form)}(?!\w)"
        text = re.sub(pattern, HIDDEN, text)
    return text


def _secrets(uri: str) -> Iterator[str]:
    yield from (value for name, value in os.environ.items() if SECRET_NAME.search(name.upper()))
    names = (os.environ.get(name) for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"))
    yield ":".join(name or "" for name in names)
    owner, at, _ = uri.partition("://")[2].rpartition("@")
    if at:
        yield owner
        yield from owner.split(":", 1)
    query = uri.partition("?")[2]
    yield query
    yield from (value for _, value in parse_qsl(query))


def _forms(secret: str) -> set[str]:
    plain = {secret, unquote(secret)}
    encoded = {form for text in plain for form in (quote(text), quote(text, safe=""), quote_plus(text))}
    basic = {base64.b64encode(text.encode()).decode() for text in plain if ":" in text}
    return {form for form in plain | encoded | basic if form.strip(":")}
