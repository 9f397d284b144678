"""What is refused, and with which status: every refusal is one JSON object, `{"error": "..."}`."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from flows.errors import ConfigError
from personsearch_core.errors import PersonSearchError

RETRY_SECONDS = 2


class Refusal(BaseModel):
    """Why a request was refused, in words for people."""

    error: str


class Refused(Exception):
    """A request that is refused; `close`: the rest of its body is not read."""

    def __init__(self, status: int, message: str, *, close: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.close = close


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, for OpenAPI."""
    return {status: {"model": Refusal} for status in statuses}


def add_handlers(app: FastAPI) -> None:
    """Turn errors into refusals."""
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(ConfigError, _bad_query)
    app.add_exception_handler(PersonSearchError, _bad_query)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


def refusal(status: int, message: str, *, close: bool = False) -> JSONResponse:
    """The response."""
    headers = {"Connection": "close"} if close else {}
    if status == 503:
        headers["Retry-After"] = str(RETRY_SECONDS)
    return JSONResponse({"error": message}, status, headers=headers)


def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused)
    return refusal(error.status, str(error), close=error.close)


def _bad_query(request: Request, error: Exception) -> JSONResponse:
    return refusal(422, str(error))


def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    return refusal(422, f"{where}: {first['msg']}" if where else first["msg"])


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    response = refusal(error.status_code, str(error.detail))
    response.headers.update(error.headers or {})
    return response
