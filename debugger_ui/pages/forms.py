"""What a form of ours sent."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request

from kairos.errors import InvalidArgument

MAX_FIELDS: Final = 32


async def read_form(request: Request, most: int = MAX_FIELDS) -> dict[str, str]:
    """The fields of a form, at most `most`; the last one of a name counts. Raises InvalidArgument if it is not one."""
    kind = request.headers.get("content-type", "application/x-www-form-urlencoded").partition(";")[0].strip()
    if kind != "application/x-www-form-urlencoded":
        raise InvalidArgument(f"a form is expected, not {kind[:60]}")
    try:
        text = (await request.body()).decode("utf-8")
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=most))
    except ValueError as exc:
        raise InvalidArgument(f"the form cannot be read: {exc}") from None
