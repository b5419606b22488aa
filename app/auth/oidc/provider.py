"""The OpenID provider: its addresses and keys, and what its tokens say.

Its documents are kept and asked for again now and then. Whoever sends tokens cannot have them
asked for more often: a token by an unknown key makes one request in `REFETCH_SECONDS`, at most.
"""

import base64
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from app.errors import Unauthorized, Unavailable
from app.settings import Settings

if TYPE_CHECKING:
    from joserfc.jwk import KeySet

KEEP_SECONDS = 3600.0
REFETCH_SECONDS = 30.0
AWAY_SECONDS = 5.0
"""So long is a provider that did not answer not asked again."""
WAIT_SECONDS = 1.0
"""So long waits who needs what another thread is asking the provider for."""
MAX_TOKEN, MAX_DOCUMENT = 1 << 14, 1 << 20
LEEWAY = 30  # seconds that clocks may differ by
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Of signatures. None of them is made with a secret that we share, so no public key can be taken
for one; and `none` is none of them."""
KEY_TYPES = ("RSA", "EC")
NEEDED = ("authorization_endpoint", "token_endpoint", "jwks_uri")
OPTIONAL = ("userinfo_endpoint", "end_session_endpoint")


def _refused(why: str) -> Unauthorized:
    challenge = {"WWW-Authenticate": 'Bearer realm="sapnet", error="invalid_token"'}
    return Unauthorized(f"The token is refused: {why}.", headers=challenge)


@contextmanager
def _turn(lock: threading.Lock, *, wait: bool) -> Iterator[bool]:
    """Take a lock around what asks the provider; whether it is ours.

    A provider that hangs holds one thread, never all: the others go on with what there is, at once
    or (wait) after a moment.
    """
    acquired = lock.acquire(timeout=WAIT_SECONDS) if wait else lock.acquire(blocking=False)
    try:
        yield acquired
    finally:
        if acquired:
            lock.release()


class Provider:
    """One provider, for all threads of this process."""

    def __init__(self, settings: Settings) -> None:
        import authlib.oidc.core  # noqa: F401  # of an extra: what is missing is said at the start

        assert settings.oidc_issuer is not None
        assert settings.oidc_client_id is not None
        self.issuer, self.client_id = settings.oidc_issuer, settings.oidc_client_id
        self._secret, self._audience = settings.oidc_client_secret, settings.oidc_audience
        self._discovering, self._fetching = threading.Lock(), threading.Lock()
        self._metadata: dict[str, Any] = {}
        self._metadata_until = self._away_until = 0.0
        self._keys: KeySet | None = None
        self._keys_until = 0.0
        self._keys_asked = -REFETCH_SECONDS

    @property
    def takes_tokens(self) -> bool:
        """Whether programs may bring the provider's access tokens."""
        return self._audience is not None

    def address(self, name: str) -> str | None:
        """Return one of the provider's addresses: "authorization_endpoint", ….

        Raises:
            Unavailable: the provider does not answer, or not for this issuer.
        """
        self._discover()
        value = self._metadata.get(name)
        return None if value is None else str(value)

    def redeem(self, code: str, verifier: str, redirect_uri: str) -> dict[str, Any]:
        """Return the tokens for a code.

        Raises:
            Unauthorized: the provider does not take the code.
            Unavailable: it does not answer.
        """
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
            "client_id": self.client_id,
        }
        url, headers = self._needed("token_endpoint"), {}
        if self._secret is not None:
            methods = self._metadata.get("token_endpoint_auth_methods_supported")
            if methods is None or "client_secret_basic" in methods:  # RFC 6749, 2.3.1
                pair = f"{quote(self.client_id, '')}:{quote(self._secret, '')}"
                headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
            else:
                form["client_secret"] = self._secret
        status, tokens = self._ask("POST", url, form=form, headers=headers)
        if status >= 500:
            raise _away(f"its token endpoint answered {status}")
        if status != 200 or not isinstance(tokens.get("id_token"), str):
            raise _refused(f"the provider answered {str(tokens.get('error', status))[:100]!r}")
        return tokens

    def userinfo(self, access_token: str) -> dict[str, Any]:
        """Return what the provider says of the user; {} where it says nothing."""
        url = self.address("userinfo_endpoint")
        if url is None:
            return {}
        headers = {"Authorization": f"Bearer {access_token}"}
        status, claims = self._ask("GET", url, headers=headers)
        return claims if status == 200 else {}

    def id_claims(self, tokens: Mapping[str, Any], nonce: str) -> dict[str, Any]:
        """Return the claims of an ID token that is ours and of this login.

        Raises:
            Unauthorized: it is not.
            Unavailable: the provider's keys cannot be had.
        """
        from authlib.oidc.core import CodeIDToken

        header, claims = self._verified(str(tokens["id_token"]))
        options = {
            "iss": {"essential": True, "value": self.issuer},
            "aud": {"essential": True, "value": self.client_id},
        }
        params = {"nonce": nonce, "client_id": self.client_id}
        if isinstance(access := tokens.get("access_token"), str):
            params["access_token"] = access
        token = CodeIDToken(claims, header, options, params)
        _validate(token)
        return claims

    def access_claims(self, token: str) -> dict[str, Any]:
        """Return the claims of an access token that is for this service.

        Raises:
            Unauthorized: it is not.
            Unavailable: the provider's keys cannot be had.
        """
        from authlib.oauth2.claims import JWTClaims

        if self._audience is None:
            raise _refused("this service takes none of the provider's tokens")
        header, claims = self._verified(token)
        options = {
            "iss": {"essential": True, "value": self.issuer},
            "aud": {"essential": True, "value": self._audience},
            "exp": {"essential": True},
            "sub": {"essential": True},
        }
        if self._audience == self.client_id and {"nonce", "at_hash"} & set(claims):
            raise _refused("it is an ID token, not an access token")
        _validate(JWTClaims(claims, header, options, {}))
        return claims

    def _verified(self, token: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Header and claims of a token with a good signature."""
        from joserfc import jwt
        from joserfc.errors import JoseError

        kid = _kid(token)
        keys = self._keys_with(kid)
        try:
            decoded = jwt.decode(token, keys, algorithms=list(ALGORITHMS))
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise _refused(f"its signature is not good ({type(error).__name__})") from error
        return dict(decoded.header), dict(decoded.claims)

    def _keys_with(self, kid: str | None) -> "KeySet":
        """The provider's keys, asked for again where none is of this id."""
        with _turn(self._fetching, wait=not self._has(kid)) as acquired:
            if acquired and self._due(kid):
                self._fetch_keys()
        keys = self._keys
        if keys is None:
            raise _away("its keys are not there yet")
        if not self._has(kid):
            raise _refused("it is signed by a key that the provider does not have")
        return keys

    def _due(self, kid: str | None) -> bool:
        now = time.monotonic()
        stale = self._keys is None or now >= self._keys_until
        return (stale or not self._has(kid)) and now - self._keys_asked >= REFETCH_SECONDS

    def _fetch_keys(self) -> None:
        """Have the provider's keys; in one thread at a time."""
        try:
            self._keys = self._fetched_keys()
            self._keys_until = time.monotonic() + KEEP_SECONDS
            self._keys_asked = time.monotonic()
        except Unavailable:
            self._keys_asked = time.monotonic()
            if self._keys is None:
                self._keys_asked += AWAY_SECONDS - REFETCH_SECONDS
                raise  # else those that there are go on

    def _has(self, kid: str | None) -> bool:
        keys = [] if self._keys is None else self._keys.keys
        return bool(keys) if kid is None else any(key.kid == kid for key in keys)

    def _fetched_keys(self) -> "KeySet":
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        self._discover()
        status, document = self._ask("GET", str(self._metadata.get("jwks_uri")))
        entries = document.get("keys")
        usable = [
            key
            for key in (entries if isinstance(entries, list) else [])
            if isinstance(key, dict) and key.get("kty") in KEY_TYPES and key.get("use") != "enc"
        ]
        keys = []
        for entry in usable:  # of an odd one the others know nothing
            with suppress(JoseError, ValueError, TypeError, KeyError):
                keys += KeySet.import_key_set({"keys": [entry]}).keys
        if status != 200 or not keys:
            raise _away(f"its keys cannot be used (status {status})")
        return KeySet(keys)

    def _needed(self, name: str) -> str:
        url = self.address(name)
        if url is None:
            raise _away(f"it names no {name}")
        return url

    def _discover(self) -> None:
        """Have the provider's addresses.

        Who waits for them meanwhile is answered at once where it is away, instead of asking again.
        """
        if time.monotonic() < self._metadata_until:
            return
        with _turn(self._discovering, wait=not self._metadata) as acquired:
            if acquired:
                self._ask_for_addresses()
        if not self._metadata:
            raise _away("its addresses are not there yet")

    def _ask_for_addresses(self) -> None:
        """Have them anew where they are old; in one thread at a time."""
        now = time.monotonic()
        if now < self._metadata_until:
            return
        if now < self._away_until:
            if not self._metadata:
                raise _away("it did not answer a moment ago")
            return
        try:
            self._metadata = self._discovered()
        except Unavailable:
            self._away_until = time.monotonic() + AWAY_SECONDS
            if not self._metadata:
                raise  # else those that there are go on
            return
        self._metadata_until = time.monotonic() + KEEP_SECONDS

    def _discovered(self) -> dict[str, Any]:
        url = f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"
        status, document = self._ask("GET", url)
        if status != 200 or document.get("issuer") != self.issuer:
            raise _away(f"{url} is no document of the issuer {self.issuer!r}")
        scheme = "https://" if self.issuer.startswith("https://") else ("https://", "http://")
        for name in NEEDED + OPTIONAL:
            value = document.get(name)
            if value is None and name in OPTIONAL:
                continue
            if not isinstance(value, str) or not value.startswith(scheme):
                raise _away(f"its {name} is no https address")
        return document

    def _ask(
        self,
        method: str,
        url: str,
        *,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON of an answer; {} where it is no object."""
        import httpx2

        from app.outbound.client import safe_client

        sent = {"Accept": "application/json", **(headers or {})}
        body = b""
        try:
            with (
                safe_client(allow_private=True, timeout=10.0, lifetime=20.0) as client,
                client.stream(method, url, data=form, headers=sent) as answer,
            ):
                for chunk in answer.iter_bytes():
                    body += chunk
                    if len(body) > MAX_DOCUMENT:
                        raise _away(f"{url} answers with more than {MAX_DOCUMENT:,} bytes")
                status = answer.status_code
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise _away(f"{type(error).__name__}") from error
        try:
            document = json.loads(body)
        except ValueError:
            document = {}
        return status, document if isinstance(document, dict) else {}


def _validate(claims: Any) -> None:
    from joserfc.errors import JoseError

    try:
        claims.validate(leeway=LEEWAY)
    except (JoseError, ValueError, TypeError) as error:
        raise _refused(str(error)[:200].rstrip(".") or type(error).__name__) from error


def _kid(token: str) -> str | None:
    """The id of the key that a token says it is signed by.

    Raises:
        Unauthorized: it is no signed token, or by no algorithm that is taken.
    """
    head, dot, rest = token.partition(".")
    if not dot or rest.count(".") != 1 or len(token) > MAX_TOKEN:
        raise _refused("it is no signed token")
    try:
        header = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
        algorithm, kid = header.get("alg"), header.get("kid")
    except (ValueError, AttributeError, RecursionError):
        raise _refused("it is no signed token") from None
    if algorithm not in ALGORITHMS:
        raise _refused("it is signed by no algorithm that is taken")
    return None if kid is None else str(kid)


def _away(why: str) -> Unavailable:
    detail = f"The OpenID provider cannot be asked: {why}."
    return Unavailable(detail, headers={"Retry-After": "5"})
