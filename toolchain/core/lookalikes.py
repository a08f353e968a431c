"""What servers and checkouts give in place of a file: a web page, or a pointer of Git LFS."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

PAGE, POINTER = "a web page", "a pointer of Git LFS"
ENOUGH = 512
"""bytes of a beginning that tell"""
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s{0,200}(?:<!doctype html|<html[\s>])", re.IGNORECASE)
_POINTER = b"version https://git-lfs.github.com/spec/"
_SHOWING = "/blob/"
"""in the path of the page that shows a file, on the sites of models and of repositories"""


def what(beginning: bytes) -> str:
    """What a file that begins so is instead of data; empty for anything else."""
    if beginning.startswith(_POINTER):
        return POINTER
    return PAGE if _PAGE.match(beginning[:ENOUGH]) else ""


def is_page(content_type: str) -> bool:
    """Whether a Content-Type is that of a web page."""
    return content_type.partition(";")[0].strip().lower() in ("text/html", "application/xhtml+xml")


def remedy(found: str, place: str) -> str:
    """What to try for a file at `place`, a path or a URL, that turned out to be that."""
    if direct := direct_url(place):
        return f"that URL is of the page that shows the file; of the file itself: {direct}"
    if found == POINTER:
        return "`git lfs pull` in its repository brings the file itself, as does the /resolve/ URL of its site"
    return "download the file itself: a page may ask for a login, or come from a proxy"


def direct_url(url: str) -> str:
    """The URL of the file that a page of Hugging Face (or a site like it) or of GitHub shows; empty for others."""
    parts = urlsplit(url)
    if parts.scheme.lower() not in ("http", "https") or _SHOWING not in parts.path:
        return ""
    direct = "/raw/" if parts.hostname in ("github.com", "www.github.com") else "/resolve/"
    return urlunsplit(parts._replace(path=parts.path.replace(_SHOWING, direct, 1), fragment=""))
