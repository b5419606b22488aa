"""Single sign-on: logins at a real OpenID provider, tokens of a hostile one."""

import base64
import hashlib
import hmac
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from fastapi.testclient import TestClient
from joserfc import jwt
from joserfc.jwk import RSAKey

from app.auth import keys
from app.auth.oidc import login
from app.auth.oidc import provider as oidc_provider
from app.auth.oidc.claims import identity
from app.auth.scope import Scope
from app.db import migrate
from app.db.session import Database
from app.errors import Forbidden, Unauthorized, Unavailable
from app.main import create_app
from app.settings import Settings

ROLES = {"staff": "write", "viewers": "read", "root": "admin"}
OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def key() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})


class Issuer:
    """A provider's discovery and keys, which a test may change, with a count of the requests."""

    def __init__(self, url: str, *keys_: RSAKey) -> None:
        self.url, self.keys, self.asked, self.posted = url, list(keys_), 0, 0
        self.away = False
        self.hangs: Event | None = None  # what its answers wait for
        self.hung = Event()
        self.metadata = {
            "issuer": url,
            "authorization_endpoint": f"{url}/authorize",
            "token_endpoint": f"{url}/token",
            "jwks_uri": f"{url}/jwks",
        }

    def token(self, signed_by: RSAKey, header: dict[str, Any] | None = None, **claims: Any) -> str:
        now = int(time.time())
        said = {"iss": self.url, "aud": "api", "sub": "anna", "exp": now + 300, "iat": now}
        said |= {"roles": ["staff"], **claims}
        said = {name: value for name, value in said.items() if value is not None}
        head = {"alg": "RS256", "kid": signed_by.kid, **(header or {})}
        return jwt.encode(head, said, signed_by, algorithms=["RS256", "PS256"])


@contextmanager
def serving(*keys_: RSAKey) -> Iterator[Issuer]:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if issuer.away:
                self.send_error(503)
                return
            if issuer.hangs is not None:
                issuer.hung.set()
                issuer.hangs.wait(60)
            document: Any = issuer.metadata
            if self.path == "/jwks":
                issuer.asked += 1
                document = {"keys": [k.as_dict(private=False) for k in issuer.keys]}
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            issuer.posted += 1
            self.send_error(503)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    issuer = Issuer(f"http://127.0.0.1:{server.server_port}", *keys_)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def issuer(key: RSAKey) -> Iterator[Issuer]:
    with serving(key) as started:
        yield started


def settings_of(folder: Path, issuer: str, **more: Any) -> Settings:
    values = {"oidc_issuer": issuer, "oidc_client_id": "page", "oidc_audience": "api"}
    values |= {"oidc_client_secret": "a secret: of 100%"}
    values |= {"oidc_roles": ROLES, "data_dir": folder, "key_cache_seconds": 0, **more}
    return Settings(_env_file=None, **values)  # type: ignore[call-arg]


@pytest.fixture
def open_app(tmp_path: Path) -> Iterator[Callable[..., TestClient]]:
    clients: list[TestClient] = []

    def opened(issuer: str, **more: Any) -> TestClient:
        settings = settings_of(tmp_path, issuer, **more)
        settings.folder()
        database = Database(settings.database)
        migrate.upgrade(database)
        database.dispose()
        client = TestClient(create_app(settings), follow_redirects=False)
        client.__enter__()
        clients.append(client)
        return client

    yield opened
    for client in clients:
        client.__exit__(None, None, None)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("claims", "more", "wanted"),
    [
        ({"sub": "a", "roles": ["staff", "other"]}, {}, ("a", Scope.WRITE)),
        ({"sub": "a", "roles": "viewers staff"}, {}, ("a", Scope.WRITE)),
        ({"sub": "a", "roles": ["viewers", "root", 7, None]}, {}, ("a", Scope.ADMIN)),
        ({"sub": "a"}, {"oidc_default_scope": "read"}, ("a", Scope.READ)),
        ({"sub": "a", "r": {"x": ["staff"]}}, {"oidc_role_claim": "r.x"}, ("a", Scope.WRITE)),
        ({"sub": "a", "urn:x.y": ["staff"]}, {"oidc_role_claim": "urn:x.y"}, ("a", Scope.WRITE)),
        ({"sub": "a", "roles": ["other"]}, {}, Forbidden),
        ({"sub": "a", "roles": {"staff": 1}}, {}, Forbidden),
        ({"sub": "", "roles": ["staff"]}, {}, Unauthorized),
        ({"sub": 7, "roles": ["staff"]}, {}, Unauthorized),
        ({"sub": "a\nb", "roles": ["staff"]}, {}, Unauthorized),
        (
            {"sub": "a", "email": "b", "roles": ["root"]},
            {"oidc_owner_claim": "email"},
            Unauthorized,
        ),
    ],
)
def test_who_claims_are_about(
    claims: dict[str, Any], more: dict[str, Any], wanted: Any, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path, "https://id.example.org", **more)
    if isinstance(wanted, tuple):
        assert identity(claims, settings) == wanted
    else:
        with pytest.raises(wanted):
            identity(claims, settings)


def test_long_names_stay_apart(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "https://id.example.org")
    owners = {identity({"sub": "x" * 70 + end, "roles": ["root"]}, settings)[0] for end in "ab"}
    assert len(owners) == 2
    assert all(len(owner) == 64 for owner in owners)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"oidc_issuer": "https://x"}, "OIDC_CLIENT_ID"),
        ({"oidc_issuer": "https://x", "oidc_client_id": "c"}, "OIDC_ROLES"),
        ({"oidc_issuer": "file:///x", "oidc_client_id": "c", "oidc_roles": ROLES}, "no address"),
        ({"public_url": "https://user@host"}, "no address"),
        ({"oidc_issuer": "https://x", "oidc_client_id": "c", "oidc_roles": {"a": "all"}}, "read"),
    ],
)
def test_settings_that_cannot_be(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Settings(_env_file=None, **values)  # type: ignore[call-arg]


def test_without_the_settings_nothing_is_there(tmp_path: Path) -> None:
    app = create_app(Settings(_env_file=None, data_dir=tmp_path))  # type: ignore[call-arg]
    assert not [path for path in app.openapi()["paths"] if path.startswith("/auth")]
    app.state.database.dispose()


@pytest.mark.slow
def test_tokens_for_programs(
    open_app: Callable[..., TestClient], issuer: Issuer, key: RSAKey
) -> None:
    client = open_app(issuer.url)
    refused = client.get("/datasets")
    assert (refused.status_code, refused.json()["login"]) == (401, "/auth/login")
    assert client.get("/datasets", headers=bearer(issuer.token(key))).status_code == 200
    assert client.get("/datasets", headers=bearer(issuer.token(key, {"alg": "PS256"}))).is_success
    viewer = bearer(issuer.token(key, roles=["viewers"]))
    assert client.get("/datasets", headers=viewer).status_code == 200
    assert client.post("/datasets", headers=viewer).status_code == 403
    stranger = client.get("/datasets", headers=bearer(issuer.token(key, roles=["none"])))
    assert stranger.status_code == 403
    assert "annotators" not in stranger.text
    assert issuer.asked == 1, "keys are kept"

    database = client.app.state.database  # type: ignore[attr-defined]
    with database.begin() as session:
        text, _ = keys.create(session, "anna", Scope.READ)
    assert client.get("/datasets", headers=bearer(text)).status_code == 200, "keys go on working"


@pytest.mark.slow
def test_tokens_that_are_refused(
    open_app: Callable[..., TestClient], issuer: Issuer, key: RSAKey
) -> None:
    client = open_app(issuer.url)
    other = RSAKey.generate_key(2048, {"kid": "one"})
    good = issuer.token(key)
    head, body, signature = good.split(".")
    public = key.as_pem(private=False)
    now = int(time.time())
    claims = {"iss": issuer.url, "aud": "api", "sub": "anna", "exp": now + 300, "iat": now}
    claims |= {"roles": ["root"]}
    none = ".".join([_segment({"alg": "none", "kid": "one"}), _segment(claims), ""])
    signed = f"{_segment({'alg': 'HS256', 'kid': 'one'})}.{_segment(claims)}"
    mac = hmac.new(public, signed.encode(), hashlib.sha256).digest()
    shared = f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    cases = {
        "alg none": none,
        "alg None": none.replace(
            _segment({"alg": "none", "kid": "one"}), _segment({"alg": "None"})
        ),
        "a public key as a secret": shared,
        "another audience": issuer.token(key, aud="page"),
        "no audience": issuer.token(key, aud=None),
        "another issuer": issuer.token(key, iss="https://other.example.org"),
        "out of date": issuer.token(key, exp=now - 120),
        "without an end": issuer.token(key, exp=None),
        "not yet": issuer.token(key, nbf=now + 600),
        "for nobody": issuer.token(key, sub=None),
        "another key of the same id": issuer.token(other),
        "another body": f"{head}.{_segment(claims)}.{signature}",
        "no signature": f"{head}.{body}.",
        "no token": "a.b.c",
        "much too long": f"{head}.{'a' * 40_000}.{signature}",
        "no header": f"{_segment(['x'])}.{body}.{signature}",
        "no text": f"{head}.ÿ.{signature}",
    }
    assert client.get("/datasets", headers=bearer(good)).status_code == 200
    for name, token in cases.items():
        answer = client.get("/datasets", headers={"Authorization": f"Bearer {token}".encode()})  # type: ignore[dict-item]
        assert answer.status_code == 401, (name, answer.text)
        assert "invalid_token" in answer.headers["www-authenticate"], name
    assert issuer.asked == 1


def _segment(document: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


@pytest.mark.slow
def test_keys_change_and_unknown_ones_are_not_asked_for_again_and_again(
    open_app: Callable[..., TestClient],
    issuer: Issuer,
    key: RSAKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = open_app(issuer.url)
    assert client.get("/datasets", headers=bearer(issuer.token(key))).status_code == 200
    for number in range(20):
        token = issuer.token(RSAKey.import_key(key.as_dict(private=True) | {"kid": f"x{number}"}))
        assert client.get("/datasets", headers=bearer(token)).status_code == 401
    assert issuer.asked == 1, "none within the time"
    monkeypatch.setattr(oidc_provider, "REFETCH_SECONDS", 0.0)
    new = RSAKey.generate_key(2048, {"kid": "two"})
    issuer.keys = [new]
    assert client.get("/datasets", headers=bearer(issuer.token(new))).status_code == 200
    assert issuer.asked == 2
    assert client.get("/datasets", headers=bearer(issuer.token(key))).status_code == 401, (
        "it is gone"
    )
    issuer.away = True
    assert client.get("/datasets", headers=bearer(issuer.token(new))).status_code == 200, "kept"


@pytest.mark.slow
def test_a_provider_that_hangs_holds_nobody_up(
    open_app: Callable[..., TestClient],
    issuer: Issuer,
    key: RSAKey,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = open_app(issuer.url)
    headers = bearer(issuer.token(key))
    assert client.get("/datasets", headers=headers).status_code == 200
    monkeypatch.setattr(oidc_provider, "REFETCH_SECONDS", 0.0)
    monkeypatch.setattr(oidc_provider, "WAIT_SECONDS", 0.05)
    stranger = issuer.token(RSAKey.generate_key(2048, {"kid": "two"}))
    issuer.hangs = Event()
    try:
        with ThreadPoolExecutor(3) as pool:
            asking = pool.submit(client.get, "/datasets", headers=bearer(stranger))
            assert issuer.hung.wait(60)
            known = issuer.token(key, sub="bert")  # not remembered from before
            assert client.get("/datasets", headers=bearer(known)).status_code == 200
            other = issuer.token(RSAKey.generate_key(2048, {"kid": "three"}))
            assert client.get("/datasets", headers=bearer(other)).status_code == 401
            assert not asking.done(), "the provider has not answered yet"
            issuer.hangs.set()
            assert asking.result(60).status_code == 401
    finally:
        issuer.hangs.set()


@pytest.mark.slow
def test_strangers_cannot_have_the_provider_asked_without_bound(
    open_app: Callable[..., TestClient], issuer: Issuer
) -> None:
    client = open_app(issuer.url, writes_per_minute=6)
    client.cookies.set("sapnet_attempt", "made.up.here")
    guess = {"state": "made", "code": "a guess"}
    with ExitStack() as others:
        for _ in range(login.AT_ONCE):
            others.enter_context(client.app.state.logins.slot())  # type: ignore[attr-defined]
        answer = client.get("/auth/callback", params=guess)
        assert (answer.status_code, issuer.posted) == (503, 0)
        assert answer.headers["Retry-After"]
    statuses = [client.get("/auth/callback", params=guess).status_code for _ in range(3)]
    assert (statuses, issuer.posted) == ([503] * 3, 3), "the provider answers none of them"
    assert client.get("/auth/login").status_code == 302
    assert client.put("/auth/login").status_code == 405
    for path in ("/auth/callback", "/auth/login"):
        assert client.get(path, params=guess).status_code == 429
    assert issuer.posted == 3


@pytest.mark.parametrize("name", [*oidc_provider.NEEDED, *oidc_provider.OPTIONAL])
def test_no_address_of_a_provider_is_less_safe_than_its_own(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(issuer: str, **changed: Any) -> str | None:
        document = {n: f"{issuer}/{n}" for n in (*oidc_provider.NEEDED, *oidc_provider.OPTIONAL)}
        document |= {"issuer": issuer, **changed}
        monkeypatch.setattr(oidc_provider.Provider, "_ask", lambda *_, **__: (200, document))
        return oidc_provider.Provider(settings_of(tmp_path, issuer)).address(name)

    safe, local = "https://id.example.org", "http://localhost:1"
    assert (read(safe), read(local)) == (f"{safe}/{name}", f"{local}/{name}")
    for issuer, value in ((safe, "http://id.example.org/x"), (local, "javascript:x"), (safe, 7)):
        with pytest.raises(Unavailable, match=f"its {name} is no https address"):
            read(issuer, **{name: value})
    if name in oidc_provider.OPTIONAL:
        assert read(safe, **{name: None}) is None


@pytest.mark.slow
def test_one_odd_key_leaves_the_others(
    open_app: Callable[..., TestClient], issuer: Issuer, key: RSAKey
) -> None:
    class Odd:
        @staticmethod
        def as_dict(private: bool) -> dict[str, Any]:
            return {"kty": "EC", "kid": "odd", "crv": "brainpoolP160r1", "x": "AA", "y": "AA"}

    issuer.keys = [Odd(), key]  # type: ignore[list-item]
    client = open_app(issuer.url)
    assert client.get("/datasets", headers=bearer(issuer.token(key))).status_code == 200


@pytest.mark.slow
def test_an_id_token_is_no_access_token(
    open_app: Callable[..., TestClient], issuer: Issuer, key: RSAKey
) -> None:
    client = open_app(issuer.url, oidc_client_id="api")
    token = issuer.token(key, nonce="n")
    assert client.get("/datasets", headers=bearer(token)).status_code == 401
    assert client.get("/datasets", headers=bearer(issuer.token(key))).status_code == 200


@pytest.mark.slow
def test_a_provider_that_is_away_or_another(
    open_app: Callable[..., TestClient], issuer: Issuer, key: RSAKey
) -> None:
    client = open_app(issuer.url)
    issuer.away = True
    answer = client.get("/datasets", headers=bearer(issuer.token(key)))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert client.get("/auth/login").status_code == 503
    issuer.away = False
    issuer.metadata["issuer"] = "https://other.example.org"
    assert client.get("/auth/login").status_code == 503
    assert client.get("/readyz").status_code == 200, "keys still work without it"


@pytest.fixture(scope="module")
def mock_provider() -> Iterator[str]:
    """The URL of a real OpenID provider with a user "anna" of the staff."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "oidc_provider_mock",
        "-p",
        str(port),
        "--require-nonce",
        "true",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            assert process.poll() is None
            try:
                httpx2.put(f"{url}/users/anna", json={"roles": ["staff"]}).raise_for_status()
                httpx2.put(f"{url}/users/eve", json={"roles": ["none"]}).raise_for_status()
                break
            except httpx2.TransportError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def at_provider(url: str, user: str) -> str:
    """Log in at the provider; the address that it sends the browser back to."""
    answer = httpx2.post(url, data={"sub": user}, follow_redirects=False)
    assert answer.status_code in (302, 303), answer.text
    return answer.headers["location"]


@pytest.mark.slow
@pytest.mark.service
def test_a_login_from_its_beginning_to_its_end(
    open_app: Callable[..., TestClient], mock_provider: str
) -> None:
    client = open_app(mock_provider)
    began = client.get("/auth/login")
    assert began.status_code == 302
    asked = parse_qs(urlsplit(began.headers["location"]).query)
    assert asked["redirect_uri"] == ["http://testserver/auth/callback"]
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["response_type"] == ["code"]
    assert len(asked["state"][0]) > 40
    cookie = began.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("httponly", "samesite=lax", "max-age=600"))

    back = at_provider(began.headers["location"], "anna")
    ended = client.get(back)
    assert ended.status_code == 303, ended.text
    assert ended.headers["location"] == "/"
    session = next(
        c for c in ended.headers.get_list("set-cookie") if c.startswith("sapnet_session=")
    )
    assert all(word in session.lower() for word in ("httponly", "samesite=lax", "path=/"))

    assert client.get("/datasets").status_code == 200
    again = client.get(back)
    assert again.status_code == 403, "the login is over"
    foreign: list[dict[str, str]] = [
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://other.example.org"},
        {"Origin": "null"},
    ]
    for headers in foreign:
        for path in ("/jobs/train", "/auth/logout"):
            answer = client.post(path, json={}, headers=headers)
            assert answer.status_code == 403, (path, headers, answer.text)
    for headers in (OWN_PAGE, {"Origin": "http://testserver"}):
        assert client.post("/jobs/train", json={}, headers=headers).status_code == 422


@pytest.mark.slow
@pytest.mark.service
def test_logging_out_ends_the_session_itself(
    open_app: Callable[..., TestClient], mock_provider: str
) -> None:
    client = open_app(mock_provider)
    client.get(at_provider(client.get("/auth/login").headers["location"], "anna"))
    stolen = client.cookies["sapnet_session"]
    assert client.get("/datasets", headers=bearer(stolen)).status_code == 200
    answer = client.post("/auth/logout", headers=OWN_PAGE)
    assert answer.json()["provider"].startswith(f"{mock_provider}/oauth2/end_session?")
    assert "sapnet_session" not in client.cookies
    assert client.get("/datasets", headers=bearer(stolen)).status_code == 401
    assert client.get("/datasets").status_code == 401


@pytest.mark.slow
@pytest.mark.service
def test_logins_that_are_refused(open_app: Callable[..., TestClient], mock_provider: str) -> None:
    client = open_app(mock_provider)
    assert client.get("/auth/callback?state=x&code=y").status_code == 403, "never begun"
    assert client.get("/auth/callback").status_code == 403

    back = at_provider(client.get("/auth/login").headers["location"], "anna")
    client.cookies.clear()
    assert client.get(back).status_code == 403, "another browser"

    first = client.get("/auth/login").headers["location"]
    client.get("/auth/login")  # another login of the same browser takes its place
    assert client.get(at_provider(first, "anna")).status_code == 403

    location = client.get("/auth/login").headers["location"]
    state = parse_qs(urlsplit(location).query)["state"][0]
    assert client.get(f"/auth/callback?state={state}&code=invented").status_code == 401
    assert client.get(f"/auth/callback?state={state}&error=access_denied").status_code == 401
    assert (
        client.get(f"/auth/callback?state={state}&code=x&iss=https://o.example").status_code == 401
    )

    # a code of somebody else's login, with the victim's own state: the verifier does not fit
    attacker = at_provider(client.get("/auth/login").headers["location"], "eve")
    code = parse_qs(urlsplit(attacker).query)["code"][0]
    victim = parse_qs(urlsplit(client.get("/auth/login").headers["location"]).query)["state"][0]
    assert client.get(f"/auth/callback?state={victim}&code={code}").status_code == 401

    eve = client.get(at_provider(client.get("/auth/login").headers["location"], "eve"))
    assert eve.status_code == 403, "she has no role"
    assert client.get("/datasets").status_code == 401
    assert (
        client.get("/auth/login?next=https://o.example")
        .headers["location"]
        .startswith(mock_provider)
    )


@pytest.mark.slow
@pytest.mark.service
def test_cookies_over_https_stay_there(
    open_app: Callable[..., TestClient], mock_provider: str
) -> None:
    client = open_app(mock_provider, public_url="https://sapnet.example.org")
    client.base_url = httpx2.URL("https://sapnet.example.org")  # type: ignore[assignment]
    began = client.get("/auth/login", headers={"Host": "other.example.org"})
    asked = parse_qs(urlsplit(began.headers["location"]).query)
    assert asked["redirect_uri"] == ["https://sapnet.example.org/auth/callback"]
    assert began.headers["set-cookie"].startswith("__Host-sapnet_attempt=")
    ended = client.get(at_provider(began.headers["location"], "anna"))
    assert ended.headers["location"] == "/"
    for cookie in ended.headers.get_list("set-cookie"):
        assert "secure" in cookie.lower(), cookie
    assert client.get("/datasets").status_code == 200


@pytest.mark.slow
@pytest.mark.service
def test_data_of_users_and_keys_of_one_name(
    open_app: Callable[..., TestClient], mock_provider: str
) -> None:
    """A user is an owner as a key's is: the same name sees the same, another one does not."""
    from app.db.models import Dataset, DatasetStatus

    client = open_app(mock_provider)
    client.get(at_provider(client.get("/auth/login").headers["location"], "anna"))
    database = client.app.state.database  # type: ignore[attr-defined]
    with database.begin() as session:
        anna, _ = keys.create(session, "anna", Scope.READ)
        ben, _ = keys.create(session, "ben", Scope.READ)
        ready = {"status": DatasetStatus.READY, "images": 0, "annotations": 0, "report": {}}
        session.add(Dataset(name="hers", owner="anna", document_sha="0" * 64, **ready))
        session.add(Dataset(name="his", owner="ben", document_sha="0" * 64, **ready))

    def names(**options: Any) -> list[str]:
        return [d["name"] for d in client.get("/datasets", **options).json()["datasets"]]

    assert names() == names(headers=bearer(anna)) == ["hers"]
    assert names(headers=bearer(ben)) == ["his"], "a key that is sent counts, not the cookie"
    assert client.get("/datasets", headers=bearer("wrong")).status_code == 401
    assert os.environ.get("SAPNET_OIDC_ISSUER") is None
