"""What only the forge knows: published releases, and pull requests on our subject.

Answers are cached with their ETag, so that unchanged ones cost nothing. A rate limit is respected until the time that
the forge states. Nothing here fails a run: errors become notes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import requests
from cachecontrol import CacheControl
from cachecontrol.caches import FileCache

from ...core import ratelimit
from ...core.errors import RecordError
from ...core.records import read, record, write
from ...sources.pin import is_build

_TIMEOUT_S = 10.0
_PULLS, _RELEASES = 30, 10
_REFUSED = (ratelimit.FORBIDDEN, ratelimit.TOO_MANY)


@record
class Item:
    """A release or a pull request."""

    key: str
    """owner/name and a tag, or owner/name#number"""
    title: str
    date: str
    url: str


@record
class ForgeCache:
    """The last list of each URL, and until when the forge must not be queried (seconds since 1970)."""

    items: dict[str, tuple[Item, ...]]
    not_before: float


@record
class Asked:
    """The forge's answers, new or cached, and why they may be old."""

    items: tuple[Item, ...]
    notes: tuple[str, ...]


def ask(
    api: str,
    repositories: Sequence[str],
    words: Sequence[str],
    cache: Path,
    now: Callable[[], float] = time.time,
    *,
    titles: Sequence[str] = (),
) -> Asked:
    """Releases of the repositories, and their pull requests that mention one of the `words`, or name one of the
    `titles` in their own.

    `api` is the root of the forge's REST interface; `cache` the file of what is known, with the answers in a folder
    beside it.
    """
    try:
        kept = read(cache, ForgeCache)
    except RecordError:
        kept = ForgeCache(items={}, not_before=0.0)
    known, notes, not_before = dict(kept.items), list[str](), kept.not_before
    items: list[Item] = []
    with requests.Session() as plain:
        session = CacheControl(plain, FileCache(cache.with_suffix(".answers")))
        session.headers["Accept"] = "application/vnd.github+json"
        for path, taken in _questions(repositories, words, titles):
            url = api.rstrip("/") + path
            if now() < not_before:
                notes.append(f"{url}: not queried: rate limit for {not_before - now():.0f} s more")
            else:
                try:
                    answer = session.get(url, timeout=_TIMEOUT_S)
                    not_before = max(not_before, ratelimit.until(answer.status_code, answer.headers, now()))
                    if answer.status_code in _REFUSED:
                        wait = f"next query possible in {not_before - now():.0f} s"
                        notes.append(f"{url}: refused with {answer.status_code}, {wait}")
                    elif answer.status_code != requests.codes.not_found or not url.endswith("/latest"):
                        known[url] = _items(answer, taken)  # without a release there is no latest
                except (requests.ConnectionError, requests.Timeout) as error:
                    notes.append(f"{api}: unavailable ({type(error).__name__}); its cached answers may be old")
                    items += [item for listed in known.values() for item in listed]
                    break
                except (requests.RequestException, ValueError) as error:
                    notes.append(f"{url}: {_first_line(error)}")
            items += known.get(url, ())
    write(cache, ForgeCache(items=known, not_before=not_before))
    return Asked(items=tuple({item.key: item for item in items}.values()), notes=tuple(notes))


Taker = Callable[[Any], tuple[Item, ...]]


def _questions(repositories: Sequence[str], words: Sequence[str], titles: Sequence[str]) -> list[tuple[str, Taker]]:
    wanted = [*map(_quoted, words), *(f"{_quoted(title)}+in:title" for title in titles)]
    found: list[tuple[str, Taker]] = []
    for repository in repositories:
        # builds of a day or two fill the list, so that the newest real release may be missing
        found.append((f"/repos/{repository}/releases?per_page={_RELEASES}", _releases(repository)))
        found.append((f"/repos/{repository}/releases/latest", _latest(repository)))
        for word in wanted:
            query = f"repo:{repository}+is:pr+{word}"
            found.append((f"/search/issues?q={query}&sort=created&order=desc&per_page={_PULLS}", _pulls(repository)))
    return found


def _quoted(words: str) -> str:
    return f"%22{'+'.join(words.split())}%22" if " " in words else words


def _items(answer: requests.Response, taken: Taker) -> tuple[Item, ...]:
    answer.raise_for_status()
    try:
        return taken(answer.json())
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"an unexpected answer ({type(error).__name__})") from error


def _releases(repository: str) -> Taker:
    """Published releases, but no nightly builds: those are tags, and the mirror has them."""

    def taken(data: Any) -> tuple[Item, ...]:
        return tuple(
            _release(repository, one)
            for one in data
            if not one.get("draft") and not (one.get("prerelease") and is_build(one["tag_name"]))
        )

    return taken


def _latest(repository: str) -> Taker:
    return lambda data: (_release(repository, data),)


def _release(repository: str, one: Any) -> Item:
    return Item(
        key=f"{repository} {one['tag_name']}",
        title=str(one.get("name") or one["tag_name"]),
        date=str(one.get("published_at") or "")[:10],
        url=str(one.get("html_url", "")),
    )


def _pulls(repository: str) -> Taker:
    def taken(data: Any) -> tuple[Item, ...]:
        return tuple(
            Item(
                key=f"{repository}#{int(one['number'])}",
                title=str(one["title"]),
                date=str(one.get("created_at") or "")[:10],
                url=str(one.get("html_url", "")),
            )
            for one in data["items"]
        )

    return taken


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
