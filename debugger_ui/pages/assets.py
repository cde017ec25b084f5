"""Scripts, styles and pictures. Their address holds a hash of all of them, so browsers may keep them for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from debugger_ui.ui import FOLDER, ui_of

STATIC: Final = (FOLDER / "static").resolve()
TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".LICENSE": "text/plain"}


async def asset(request: Request) -> Response:
    """One file."""
    path = (STATIC / request.path_params["name"]).resolve()
    if not path.is_relative_to(STATIC) or not path.is_file():
        raise HTTPException(404)
    is_current = request.path_params["version"] == ui_of(request).version
    cache = "public, max-age=31536000, immutable" if is_current else "no-cache"
    return FileResponse(path, media_type=_type_of(path), headers={"Cache-Control": cache})


def _type_of(path: Path) -> str:
    return TYPES.get(path.suffix, "application/octet-stream")
