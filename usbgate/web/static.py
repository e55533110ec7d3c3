"""
The files of the page: those of `TYPES`, read once, and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from http import HTTPStatus
from importlib.resources import files
from typing import Any, NamedTuple

from usbgate.core.errors import Unknown
from usbgate.web.problems import respond

_TEXT = "; charset=utf-8"

# Every file below `page/` that is served, by its path there, with its type. `index.html` is served as `/`, too.
TYPES: Mapping[str, str] = {
    "index.html": "text/html" + _TEXT,
    "page.css": "text/css" + _TEXT,
    "icon.svg": "image/svg+xml",
    **dict.fromkeys(["icon-192.png", "icon-512.png", "icon-maskable.png"], "image/png"),
    "manifest.webmanifest": "application/manifest+json",
    **dict.fromkeys(
        [
            "alarms.js",
            "api.js",
            "app.js",
            "asks.js",
            "buckets.js",
            "card.js",
            "chart.js",
            "charts.js",
            "contact.js",
            "csv.js",
            "dom.js",
            "english.js",
            "format.js",
            "french.js",
            "kinds.js",
            "listeners.js",
            "login.js",
            "marks.js",
            "memory.js",
            "offers.js",
            "overview.js",
            "pastalarms.js",
            "range.js",
            "row.js",
            "sensor.js",
            "sensors.js",
            "sensortext.js",
            "sparks.js",
            "states.js",
            "store.js",
            "stream.js",
            "wall.js",
            "words.js",
            "worker.js",
        ],
        "text/javascript" + _TEXT,
    ),
    "vendor/uplot.min.js": "text/javascript" + _TEXT,
    "vendor/uplot.min.css": "text/css" + _TEXT,
    "vendor/uplot-license.txt": "text/plain" + _TEXT,
}


class PageFile(NamedTuple):
    """
    One file, with its headers `Content-Type` and `ETag`.
    """

    content: bytes
    content_type: str
    etag: bytes


def load_page() -> Mapping[str, PageFile]:
    """
    Read all files of the page; returns them by path below `page/`.
    """
    folder = files(__package__) / "page"
    return {path: _load((folder / path).read_bytes(), content_type) for path, content_type in TYPES.items()}


def send_file(request: Any, page: Mapping[str, PageFile], path: str) -> None:
    """
    Send one of the files of a page; of an unchanged one, that the browser has it already.

    Raises:
        Unknown: There is no such file.
    """
    file = page.get(path)
    if file is None:
        raise Unknown("no such path")
    request.setHeader("Cache-Control", "no-cache")  # browsers ask each time, and get 304 for an unchanged file
    if request.setETag(file.etag) is not None:
        request.finish()
    else:
        respond(request, HTTPStatus.OK, file.content_type, file.content)


def _load(content: bytes, content_type: str) -> PageFile:
    return PageFile(content, content_type, b'"' + hashlib.sha256(content).hexdigest()[:24].encode() + b'"')
