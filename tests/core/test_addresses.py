"""Addresses are public_uri without secrets, and nothing else of an error message gives them away."""

import base64

import pytest

from blurdm.core.addresses import public_uri, without_secrets

SECRETS = ("alice", "s3cret", "hunter2", "p%40ss", "p@ss", "se/cret", "cret@")


@pytest.mark.parametrize(
    ("uri", "right"),
    [
        ("http://tracker:5000", "http://tracker:5000"),
        ("http://alice:s3cret@host:1", "http://host:1"),
        ("https://alice@host/mlflow/", "https://host/mlflow/"),
        ("https://s3cret@host", "https://host"),
        ("http://alice:p%40ss@host:1/x?password=hunter2#s3cret", "http://host:1/x"),
        ("http://host/?password=p@ss", "http://***"),
        ("http://alice:se/cret@host:1", "http://***"),
        ("http://alice:1?s3cret@host", "http://***"),
        ("http://alice:p@ss@host", "http://host"),
        ("http://host/x;token=hunter2", "http://host/x"),
        ("http://[alice:s3cret@host", "http://***"),
        ("http:/alice:s3cret@host", "***"),
        ("alice:s3cret@host:5000", "***"),
        ("postgresql+psycopg2://alice:s3cret@db/mlflow?sslpassword=hunter2", "postgresql+psycopg2://db/mlflow"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("sqlite:////a b/50%/x#1/@home/mlflow.db?key=hunter2", "sqlite:////a b/50%/x#1/@home/mlflow.db"),
        ("http:///alice:s3cret@host", "http://***"),
        ("databricks", "databricks"),
        ("mlruns", "mlruns"),
        ("", ""),
    ],
)
def test_an_address_is_shown_without_its_secrets(uri: str, right: str) -> None:
    assert public_uri(uri) == right
    assert public_uri(right) == right
    assert not any(secret in public_uri(uri) for secret in SECRETS)


URIS = ("http://alice:s3cret@host:1/x?password=hunter2", "http://alice:p%40ss@host:1/x?password=hunter2")
TEXTS = (
    "API request to {uri}/api/2.0 failed",
    "user {user} has password {password}, which is {quoted}",
    "Max retries exceeded with url: /x?password=hunter2&a=b (Caused by NewConnectionError('http://{owner}@host:1'))",
    "HTTPSConnectionPool(host='host'): Authorization: Basic {basic}",
    "Authorization: Bearer t0ken-of-env, password env-pass",
)


@pytest.mark.parametrize("uri", URIS)
@pytest.mark.parametrize("text", TEXTS)
def test_an_error_says_nothing_secret(uri: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken-of-env")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "env-pass")
    owner = uri.partition("://")[2].partition("@")[0]
    user, _, quoted = owner.partition(":")
    password = quoted.replace("%40", "@")
    basic = base64.b64encode(f"{user}:{password}".encode()).decode()
    full = text.format(uri=uri, owner=owner, user=user, quoted=quoted, password=password, basic=basic)
    safe = without_secrets(full, uri)
    for secret in (user, quoted, password, basic, "hunter2", "t0ken-of-env", "env-pass"):
        assert secret not in safe, safe


def test_a_short_user_name_does_not_spoil_the_words_of_an_error() -> None:
    assert (
        without_secrets("a server at http://a:b@host said: bad", "http://a:b@host")
        == "*** server at http://host said: bad"
    )
