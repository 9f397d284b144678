"""Who may use the server: checks of every request before anything else looks at it.

The name it was called by (against DNS rebinding), where a change comes from (against other sites' pages), and
the token, if there is one. No other origin is ever allowed in by CORS.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flows.pages.page import SERVED
from flows.serving.page import sign_in_page
from flows.serving.refusals import refusal

SIGN_IN = "/sign-in"
PICTURES = "/api/pictures"
_MOST_BODY_BYTES = 64 * 1024
"""Of any request but that which sends a picture; it has to say its length."""
_SAFE = frozenset({"GET", "HEAD"})
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_HEADERS = {
    "Content-Security-Policy": f"{SERVED}; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def is_loopback(host: str) -> bool:
    """Whether an address or a name of this machine is reached from this machine only."""
    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(each.partition("%")[0]).is_loopback for each in addresses)


@dataclass(frozen=True)
class Access:
    """host, port: where the server listens. token: None if whoever reaches the server may use it."""

    host: str
    port: int
    token: str | None = None

    @property
    def names(self) -> frozenset[str] | None:
        """The names it may be called by; None for any, which a token makes safe."""
        if self.token is not None:
            return None
        return _LOOPBACK_NAMES | {self.host.lower()}

    @property
    def cookie(self) -> str:
        """Cookies do not know ports, but their names may."""
        return f"personsearch-{self.port}"

    def cookie_value(self) -> str:
        """Stands for the token in browsers, which then do not keep the token itself."""
        return hashlib.sha256(b"cookie:" + (self.token or "").encode()).hexdigest()

    def is_token(self, given: str) -> bool:
        """Compare in a time that does not depend on how much is right."""
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())

    def admits(self, headers: Headers) -> bool:
        """Whether a request carries the token or its cookie, where there is one."""
        if self.token is None:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(given.strip()):
            return True
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        return self.cookie in cookies and hmac.compare_digest(
            cookies[self.cookie].value.encode(), self.cookie_value().encode()
        )


class Gate:
    """ASGI middleware that lets requests in as `Access` says, and adds headers to every response."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no WebSocket is ever accepted

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refused = await self._refuse(scope, receive)
        await (refused or self._app)(scope, receive, send_with_headers)

    async def _refuse(self, scope: Scope, receive: Receive) -> Response | None:
        """The response to a request that is not let in, or that signs in."""
        access, headers, path = self._access, Headers(scope=scope), scope["path"]
        if access.names is not None and _host(headers) not in access.names:
            return refusal(421, f"this server is called {access.host}, not {_host(headers)[:100]}")
        if scope["method"] not in _SAFE and not _is_of_this_site(headers):
            return refusal(403, "requests from pages of other sites are refused", close=True)
        if (status := _body_problem(headers)) and path != PICTURES:
            return refusal(*status, close=True)
        if access.token is not None and path == SIGN_IN and scope["method"] == "POST":
            return await self._sign_in(Request(scope, receive))
        query = QueryParams(scope["query_string"])
        if access.token is not None and path == "/" and "token" in query:
            return self._signed_in(query["token"])
        if access.admits(headers):
            return None
        if path == "/":
            return HTMLResponse(sign_in_page(SIGN_IN), 401)
        return refusal(401, "a token is needed: send it as `Authorization: Bearer TOKEN`", close=True)

    async def _sign_in(self, request: Request) -> Response:
        body = (await request.body()).decode("utf-8", "replace")
        form: Mapping[str, list[str]] = parse_qs(body)
        return self._signed_in(form.get("token", [""])[0].strip())

    def _signed_in(self, token: str) -> Response:
        """Take the token out of the address and into a cookie."""
        if not self._access.is_token(token):
            return HTMLResponse(sign_in_page(SIGN_IN, wrong=True), 401)
        response = RedirectResponse("/", 303)
        response.set_cookie(
            self._access.cookie, self._access.cookie_value(), httponly=True, samesite="lax", path="/"
        )
        return response


def _host(headers: Headers) -> str:
    """The name in the Host header, without the port."""
    try:
        return (urlsplit(f"//{headers.get('host', '')}").hostname or "").lower()
    except ValueError:
        return ""


def _body_problem(headers: Headers) -> tuple[int, str] | None:
    """Status and message if a request has a body that is too large, or that does not say its length."""
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers:
        return 411, "send the length of the body (Content-Length)"
    if not length.isdecimal() or int(length) > _MOST_BODY_BYTES:
        return 413, f"the body is larger than {_MOST_BODY_BYTES // 1024} KiB"
    return None


def _is_of_this_site(headers: Headers) -> bool:
    """Whether a change comes from a page of this server or from a program, which sends neither header."""
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
