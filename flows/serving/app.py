"""The routes of the search page and of its HTTP interface."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, Response

from flows.search.judgements import PersonName
from flows.serving import answers
from flows.serving.access import PICTURES, Access, Gate
from flows.serving.drawing import DrawnJpeg
from flows.serving.page import SCRIPT, search_page
from flows.serving.refusals import add_handlers, problems
from flows.serving.searching import Served, needs_model
from flows.serving.uploads import Receiver, Upload
from flows.serving.work import Work

_Row = Annotated[int, Path(ge=0, le=2**31 - 1, description="Row of a person in the index.")]
_Token = Annotated[str, Path(max_length=64, description="The token of a picture that was sent.")]
_Number = Annotated[
    int | None, Query(ge=1, le=10_000, description="Number of the person in the picture, from 1.")
]
_Name = Annotated[PersonName, Query(description="The name of a person.")]
_JPEG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/jpeg": {}}, "description": "A JPEG."}}
_BODY = {
    "requestBody": {
        "required": True,
        "description": "The bytes of a picture, as they are in its file.",
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in ("application/octet-stream", "image/jpeg", "image/png", "image/webp")
        },
    }
}


def create_app(served: Served, access: Access) -> FastAPI:
    """The application: page, HTTP interface, and the checks of every request before both."""
    work, receiver = Work(served.limits), Receiver(served.limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        work.close()

    app = FastAPI(
        title="personsearch",
        version=version("personsearch"),
        summary="Find a person, given by a picture, in the scenes of an index.",
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    add_handlers(app)
    _add_pages(app, served)
    _add_index(app, served, work)
    _add_pictures(app, served, work, receiver)
    _add_searches(app, served, work)
    app.add_middleware(Gate, access=access)
    return app


def _add_pages(app: FastAPI, served: Served) -> None:
    @app.get("/", include_in_schema=False)
    def page() -> HTMLResponse:
        return HTMLResponse(search_page(served.about()))

    @app.get("/search.js", include_in_schema=False)
    def script() -> FileResponse:
        return FileResponse(SCRIPT, media_type="text/javascript")


def _add_index(app: FastAPI, served: Served, work: Work) -> None:
    unknown_row = problems(404, 422)

    @app.get("/api/index", tags=["index"])
    async def about_the_index() -> answers.About:
        """What the index holds, and what the server takes."""
        return await work.searching(served.about)

    @app.get("/api/examples", tags=["index"])
    async def examples() -> list[answers.Example]:
        """Scenes to start from."""
        return await work.searching(served.examples)

    @app.get("/api/scenes/{row}", tags=["index"], responses=unknown_row)
    async def scene(row: _Row) -> answers.SceneAnswer:
        """The scene in which a person was seen, with all people in it."""
        return await work.drawing(partial(served.scene, row))

    @app.get(
        "/api/scenes/{row}/picture", tags=["index"], responses=_JPEG | unknown_row, response_class=Response
    )
    async def scene_picture(row: _Row) -> Response:
        """That scene, shrunk to at most 1600 x 1200 pixels."""
        return _jpeg(await work.drawing(partial(served.drawn, "scene", row)))

    @app.get("/api/people/{row}/crop", tags=["index"], responses=_JPEG | unknown_row, response_class=Response)
    async def crop(row: _Row) -> Response:
        """A person in the index."""
        return _jpeg(await work.drawing(partial(served.drawn, "crop", row)))


def _add_pictures(app: FastAPI, served: Served, work: Work, receiver: Receiver) -> None:
    @app.post(
        PICTURES,
        tags=["pictures"],
        status_code=201,
        openapi_extra=_BODY,
        responses=problems(400, 408, 413, 415, 422, 503),
    )
    async def send_a_picture(request: Request) -> answers.Picture:
        """Find the people in a picture. It is kept in memory only, as long as there is room."""
        async with receiver.receive(request) as encoded:
            upload = await work.with_model(partial(served.receive, encoded))
        return _described(upload)

    @app.get("/api/pictures/{token}", tags=["pictures"], responses=problems(404, 422))
    def picture(token: _Token) -> answers.Picture:
        """The people in a picture that was sent."""
        return _described(served.upload(token))

    @app.get(
        "/api/pictures/{token}/picture",
        tags=["pictures"],
        responses=_JPEG | problems(404, 422),
        response_class=Response,
    )
    async def sent_picture(token: _Token, person: _Number = None) -> Response:
        """The picture itself, shrunk to at most 1600 x 1200 pixels; or the crop of one of its people."""
        return _jpeg(await work.drawing(partial(served.sent, token, person)))


def _add_searches(app: FastAPI, served: Served, work: Work) -> None:
    @app.get("/api/search", tags=["search"], responses=problems(404, 409, 422, 503))
    async def search(asked: Annotated[answers.SearchRequest, Query()]) -> answers.SearchAnswer:
        """Who in the index looks like the person: most similar first."""
        run = work.with_model if needs_model(asked) else work.searching
        return await run(partial(served.search, asked))

    @app.get("/api/judgements", tags=["judgements"], responses=problems(422))
    async def judgements(name: _Name) -> answers.JudgedPerson:
        """What was confirmed and rejected for a person."""
        return await work.searching(partial(served.judged, name))

    @app.post("/api/judgements", tags=["judgements"], responses=problems(400, 404, 409, 411, 413, 422))
    async def judge(judgement: answers.JudgementRequest) -> answers.JudgedPerson:
        """Confirm or reject matches, or take that back; on the disk when this is answered."""
        return await work.searching(partial(served.judge, judgement))


def _described(upload: Upload) -> answers.Picture:
    return answers.Picture(
        picture=upload.token,
        width=upload.drawn.width,
        height=upload.drawn.height,
        people=[
            answers.PersonInPicture(person=each.number, box=each.box, score=each.score)
            for each in upload.people
        ],
    )


def _jpeg(drawn: DrawnJpeg) -> Response:
    """A browser may keep it for a while: the page's addresses of pictures say the version of the index."""
    return Response(drawn.jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=600"})
