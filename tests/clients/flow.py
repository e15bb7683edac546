"""People with tokens of an OpenID Connect issuer, and programs with client certificates,
as the public clients httpx and requests ask the daemon.

Runs an issuer (Authlib's, by oidc-provider-mock) on loopback and prints its URL. Then reads a
line with the daemon's URL and the path of a customer's blobs, logs people in by the
authorization code flow without a browser, and asks. Ends with 0 if every answer was right.

Files in the working directory: ca.pem, and portal.pem with portal.key.
"""

import base64
import json
import ssl
import sys
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import httpx
import oidc_provider_mock
import requests
from oidc_provider_mock import User

REDIRECT = "http://127.0.0.1:1/callback"

USERS = [
    User(sub="p-17", claims={"amr": ["pwd", "mfa"]}),
    User(sub="p-18", claims={"amr": ["pwd"]}),
    User(sub="p-19", claims={"amr": ["pwd", "mfa"]}),
]


def log_in(issuer, subject, client_id="strongroom"):
    """The authorization code flow (OpenID Connect Core s3.1), with the user's part by form."""
    metadata = requests.get(f"{issuer}/.well-known/openid-configuration", timeout=5).json()
    assert metadata["issuer"] == issuer
    asked = {
        "client_id": client_id,
        "redirect_uri": REDIRECT,
        "response_type": "code",
        "scope": "openid",
        "state": "s",
        "nonce": "n",
    }
    answer = requests.post(
        metadata["authorization_endpoint"], params=asked, data={"sub": subject}, allow_redirects=False, timeout=5
    )
    assert answer.status_code in (302, 303), answer.text
    code = parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]
    answer = requests.post(
        metadata["token_endpoint"],
        data={"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT},
        auth=(client_id, "secret"),
        timeout=5,
    )
    answer.raise_for_status()
    return answer.json()["id_token"]


def part(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def claims_of(token):
    body = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


def main():
    options = {"user_claims": USERS, "access_token_max_age": timedelta(minutes=5)}
    with oidc_provider_mock.run_server_in_thread(**options) as server:
        issuer = f"http://127.0.0.1:{server.server_port}"
        print(issuer, flush=True)
        daemon, blobs = sys.stdin.readline().split()
        check(issuer, daemon, blobs)


def check(issuer, daemon, blobs):
    context = ssl.create_default_context(cafile="ca.pem")
    context.load_cert_chain("portal.pem", "portal.key")
    for http2 in (False, True):
        with httpx.Client(base_url=daemon, verify=context, http2=http2, timeout=30) as client:
            programs(client, blobs, "HTTP/2" if http2 else "HTTP/1.1")
            people(client, issuer, blobs)
    with requests.Session() as session:
        session.trust_env = False
        session.verify, session.cert = "ca.pem", ("portal.pem", "portal.key")
        sealed = session.post(daemon + blobs, data=iter([b"in ", b"pieces"]), timeout=30)
        assert sealed.status_code == 201, sealed.text
        opened = session.get(daemon + sealed.headers["location"], timeout=30)
        assert opened.content == b"in pieces"
    try:
        requests.get(daemon + "/v1/health", verify="ca.pem", timeout=30)
    except requests.exceptions.ConnectionError:
        pass
    else:
        raise AssertionError("somebody without a certificate was let in")


def programs(client, blobs, version):
    """What a service does, with its certificate alone."""
    data = bytes(range(256)) * 5000

    def pieces():
        for at in range(0, len(data), 7001):
            yield data[at : at + 7001]

    sealed = client.post(blobs, content=pieces(), headers={"Idempotency-Key": "python-" + version})
    assert sealed.status_code == 201 and sealed.http_version == version, sealed.text
    again = client.post(blobs, content=data, headers={"Idempotency-Key": "python-" + version})
    assert again.status_code == 201 and again.json()["blob"] == sealed.json()["blob"]
    assert again.headers["idempotent-replayed"] == "true"
    location = sealed.headers["location"]
    opened = client.get(location)
    assert opened.content == data
    assert client.get(location, headers={"Range": "bytes=-3"}).content == data[-3:]
    assert client.get(location, headers={"If-None-Match": opened.headers["etag"]}).status_code == 304
    with client.stream("GET", location) as stream:
        assert b"".join(stream.iter_raw()) == data
    missing = client.get(blobs + "/nothing")
    assert missing.status_code == 404 and missing.json()["code"] == "not-found"


def people(client, issuer, blobs):
    """What a person does: the certificate brings them in, and the token says who they are."""

    def ask(token, path=blobs):
        return client.get(path, headers={"Authorization": f"Bearer {token}"})

    orders = "/v1/orders"
    officer = log_in(issuer, "p-17")
    assert claims_of(officer)["iss"] == issuer
    assert ask(officer, orders).status_code == 200, ask(officer, orders).text
    # They are not who brought them in: the certificate's roles are not theirs.
    answer = ask(officer)
    assert answer.status_code == 403 and answer.json()["rule"] == "deny.role", answer.text
    # Without a second factor, of an unknown subject, for somebody else.
    for refused in (log_in(issuer, "p-18"), log_in(issuer, "p-19"), log_in(issuer, "p-17", "another")):
        answer = ask(refused, orders)
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer", answer.text
    header, body, signature = officer.split(".")
    later = dict(claims_of(officer), exp=4102444800)
    for forged in (
        f"{part({'alg': 'none'})}.{body}.",
        f"{part({'alg': 'HS256'})}.{body}.{signature}",
        f"{header}.{part(later)}.{signature}",
        f"{header}.{body}",
        "Jane.Doe.",
    ):
        answer = ask(forged, orders)
        assert answer.status_code == 401 and "Jane" not in answer.text, answer.text


main()
