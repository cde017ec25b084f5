"""Who may ask, and what every answer carries: ASGI middleware without a framework around it."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from hashlib import sha256
from http.cookies import SimpleCookie
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
MAX_BODY: Final = 1_000_000
LARGE_BODIES: Final = {"/open": 64_100_000}
"""Path -> bytes that may be sent there: a file is dropped, with what a form puts around it."""
MAX_QUERY: Final = 8_192
COOKIE: Final = "kairos_ui"
OPEN_PATHS: Final = ("/healthz", "/readyz", "/login", "/static/")
"""What needs no token: probes, the page that asks for it, and what that page is drawn with."""

CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final = (
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask.

    Attributes:
        hosts: names that a request may be addressed to, beside those of the loopback.
        any_address: whether it may also be addressed to a bare IP address. A page elsewhere can make a browser
            send a name of its own choice here, but no address.
        token: what must be shown; None on a loopback address.
    """

    hosts: frozenset[str] = frozenset()
    any_address: bool = False
    token: str | None = None

    def knows(self, host: str) -> bool:
        """Whether requests for this `Host` are answered."""
        name = host_name(host)
        if name in LOOPBACK_NAMES or name in self.hosts:
            return True
        return self.any_address and _is_address(name)

    @property
    def cookie(self) -> str:
        """What the cookie holds: it proves the token, without being it."""
        return sha256(b"kairos ui cookie:" + (self.token or "").encode()).hexdigest()

    def is_shown(self, headers: dict[bytes, bytes]) -> bool:
        """Whether a request carries the token, or the cookie that stands for it."""
        if self.token is None:
            return True
        kind, _, given = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if kind.lower() == "bearer" and same(given.strip(), self.token):
            return True
        try:
            cookie = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1")).get(COOKIE)
        except Exception:
            return False
        return cookie is not None and same(cookie.value, self.cookie)


def same(given: str, wanted: str) -> bool:
    """Whether two secrets are equal, in a time that tells nothing."""
    return hmac.compare_digest(given.encode(), wanted.encode())


def host_name(host: str) -> str:
    """The name in a `Host` header, without its port."""
    text = host.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    if text.count(":") > 1:
        return text  # an IPv6 address without its brackets
    return text.partition(":")[0].rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """Lets a request through to `app`, or refuses it; adds the security headers to every answer."""

    def __init__(self, app: Asgi, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((name, value) for name, value in HEADERS if name not in given),
                    *(() if b"cache-control" in given else ((b"cache-control", b"no-store"),)),
                ]
            await send(message)

        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _refuse(answer, scope, *refusal)
        elif not self._is_open(scope) and not self.access.is_shown(headers):
            await self._ask_for_token(scope, answer)
        else:
            await self.app(scope, receive, answer)

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        host = headers.get(b"host", b"").decode("latin-1")
        if not self.access.knows(host):
            return 421, f"This server does not answer for the host {host_name(host)[:80]!r}. Add it with --allow-host."
        if len(scope["query_string"]) > MAX_QUERY:
            return 414, f"The query is longer than {MAX_QUERY:,} bytes."
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return None
        if not is_same_site(headers, host):
            return 403, "This request comes from another site, so it changes nothing here."
        if b"transfer-encoding" in headers:
            return 411, "The length of the body must be told beforehand."
        size = headers.get(b"content-length", b"0")
        most = LARGE_BODIES.get(scope["path"], MAX_BODY)
        if not size.isdigit() or int(size) > most:
            return 413, f"The body is longer than {most:,} bytes."
        return None

    @staticmethod
    def _is_open(scope: Scope) -> bool:
        path: str = scope["path"]
        return any(path == known or (known.endswith("/") and path.startswith(known)) for known in OPEN_PATHS)

    async def _ask_for_token(self, scope: Scope, send: Send) -> None:
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(query).get("token")
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        here = scope["path"] + (f"?{rest}" if rest else "")
        wants_page = b"text/html" in dict(scope["headers"]).get(b"accept", b"")
        if given is not None and self.access.token is not None and same(given, self.access.token):
            await _redirect(send, local_path(here), cookie(self.access))
        elif scope["method"] == "GET" and wants_page:
            await _redirect(send, f"/login?{urlencode({'next': here})}")
        else:
            await _refuse(send, scope, 401, "A token is needed: send it as `Authorization: Bearer TOKEN`.")


def is_same_site(headers: dict[bytes, bytes], host: str) -> bool:
    """Whether a request that changes something was made by a page of ours, or by no browser at all."""
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site in (b"same-origin", b"none")
    origin = headers.get(b"origin")
    return origin is None or origin.decode("latin-1").partition("://")[2] == host


def local_path(text: str) -> str:
    """`text` if it is a path on this server, else `/`: nobody is sent elsewhere."""
    is_local = text.startswith("/") and not text.startswith(("//", "/\\")) and not any(c < " " for c in text)
    return text if is_local else "/"


def cookie(access: Access) -> str:
    """The `Set-Cookie` that stands for the token. Lax: a link in a chat must open."""
    return f"{COOKIE}={access.cookie}; Path=/; HttpOnly; SameSite=Lax; Max-Age=2592000"


async def _redirect(send: Send, path: str, set_cookie: str | None = None) -> None:
    headers: list[tuple[bytes, bytes]] = [(b"location", path.encode("utf-8", "replace"))]
    if set_cookie is not None:
        headers.append((b"set-cookie", set_cookie.encode()))
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _refuse(send: Send, scope: Scope, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="kairos"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else f"{text}\n".encode()})


def hosts_of(names: Iterable[str]) -> frozenset[str]:
    """Names as `Access.hosts` wants them."""
    return frozenset(host_name(name) for name in names)
