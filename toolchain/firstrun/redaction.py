"""Removes from a report who and where somebody is, and what opens a door: names, addresses, serial numbers, keys.

What this machine and its users are called is asked for and replaced wherever it stands; what has a shape of its own (an
address, a token) is replaced by its shape. Too much rather than too little: a version of four numbers goes as well.
"""

from __future__ import annotations

import ipaddress
import json
import os
import pwd
import re
import shlex
import socket
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape

from ..core import process

_HOMES = (Path("/Users"), Path("/home"))
_NEW_MACS = ("mac", "imac", "mac-mini", "mac-studio", "macbook", "macbook-air", "macbook-pro")
_PUBLIC = frozenset(
    {"", "root", "nobody", "shared", "guest", "system administrator", "unprivileged user", "localhost"}
    | {f"{name}{ending}" for name in _NEW_MACS for ending in ("", ".local")}
)
"""names that are of nobody, in small letters; the last are what macOS calls a new Mac"""
_OPENING = r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASS|PASSPHRASE|CREDENTIALS?|COOKIE|AUTH)"
_VARIABLE = rf"(?:(?:[A-Z0-9_]*_)?{_OPENING}(?:_[A-Z0-9_]*)?|[A-Z0-9_]+KEY)"
"""a name in capitals whose value is a secret, as an environment has it"""
_SECRET_VARIABLE = re.compile(rf"{_VARIABLE}\Z")
_LEAST_OPENING = 6
"""characters; a shorter value of a secret variable would be replaced all over"""
_LEARNED, _LEAST_LEARNED = ("key", "serial number"), 8
_LEAST_NAME, _LEAST_KNOWN = 3, 2
"""characters of a part of a real name, and of any name: a single letter says nothing about anybody"""
_NO_CHIP = r"(?<!M\d )(?<!M\d\d )"
"""in front of a name: Apple's M3 Max is nobody's"""
_WORD = (
    r"(?:\w*[_.-])?(?:password|passwd|passphrase|secret|credentials?|api[_-]?key|access[_-]?key|private[_-]?key|"
    r"(?:access|auth|refresh|id|session|api|bearer)[_-]?token|authorization|cookie)(?:[_.-]\w*)?"
)
_OPTION = rf"(?:{_WORD}|token)"
_MARKED = re.compile(
    "<(?:key|(?:user|host|real) name|(?:home|temporary) folder|serial number|IP address|e-mail address"
    "|hardware (?:UUID|address)|account of a URL|server of an organisation)>"
)
# What repeats before a required character is bounded: outputs are long.
_SHAPES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)),
    # NAME=value of an environment: to the end of the line, since a value may hold blanks; or within its quotes
    ("key", re.compile(rf"(?<![A-Za-z0-9_]){_VARIABLE}[\"']?\s*(?:=>|=|:)\s*\"?(?P<it>[^\n\"]+)")),
    ("key", re.compile(rf"(?<![\w-])(?:{_WORD})[\"']?\s*(?:=>|=|:)\s*\"?(?P<it>[^\n\"]+)", re.IGNORECASE)),
    ("key", re.compile(rf"(?<![\w-])--?(?:{_OPTION})[\"']?[ \t]+[\"']?(?P<it>[^\s\"'-][^\s\"']*)", re.IGNORECASE)),
    ("key", re.compile(rf"[?&](?:{_OPTION}|key|sig|signature)=(?P<it>[^&\s\"']+)", re.IGNORECASE)),
    # a property list
    ("key", re.compile(rf"<key>(?:{_VARIABLE}|(?i:{_WORD}))</key>\s*<(?:string|data)>(?P<it>[^<]+)")),
    ("key", re.compile(r"\b(?:Bearer|Basic)\s+(?P<it>[A-Za-z0-9._~+/=-]{8,})", re.IGNORECASE)),
    (
        "key",
        re.compile(
            r"(?<![A-Za-z0-9])(?:sk-|ghp_|gho_|ghs_|ghu_|github_pat_|glpat-|hf_|xox[abprs]-|npm_|pypi-|AKIA|ASIA|AIza|eyJ)"
            r"[A-Za-z0-9._-]{10,}"
        ),
    ),
    ("key", re.compile(r"(?:ssh-(?:rsa|ed25519|dss)|ecdsa-sha2-\S{1,40}) (?P<it>AAAA[A-Za-z0-9+/=]+)")),
    ("account of a URL", re.compile(r"(?<=://)(?P<it>[^/@\s]+)(?=@)")),
    ("server of an organisation", re.compile(r"MDM server\w*\s*[:=]\s*(?P<it>\S+)", re.IGNORECASE)),
    ("e-mail address", re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+")),
    (
        "hardware UUID",
        re.compile(r"(?<![0-9A-Fa-f])[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}(?![0-9A-Fa-f])"),
    ),
    ("hardware UUID", re.compile(r"(?<![0-9A-Za-z-])[0-9A-F]{8}-[0-9A-F]{16}(?![0-9A-Za-z-])")),
    (
        "serial number",
        re.compile(
            r"serial[ _-]?(?:number|num|no\.?)?(?:[ _]?\([^)\n]{0,60}\))?[\"']?\s*(?:=>|=|:)\s*\"?(?P<it>[\w.-]+)", re.I
        ),
    ),
    ("hardware address", re.compile(r"(?<![0-9A-Fa-f:])(?:[0-9A-Fa-f]{1,2}[:-]){5}[0-9A-Fa-f]{1,2}(?![0-9A-Fa-f:])")),
    ("temporary folder", re.compile(r"(?<=/var/folders/)(?P<it>[^/\s]{2}/[^/\s\"':<]+)")),  # made from the user's UUID
    ("user name", re.compile(r"(?<=/Users/)(?!Shared\b)(?P<it>[^/\s\"':<]+)|(?<=/home/)(?P<other>[^/\s\"':<]+)")),
)
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(?:%\w+)?(?![\w:])")


class Redactor:
    """Replaces what `known` lists, pairs of a kind and a text, and what has a known shape; counts it by kind."""

    def __init__(self, known: Iterable[tuple[str, str]]) -> None:
        kinds: dict[str, str] = {}
        for kind, text in known:
            if text.strip().casefold() not in _PUBLIC and len(text.strip()) >= _LEAST_KNOWN:
                for form in _forms(text.strip()):
                    kinds.setdefault(form, kind)
        self._kinds = {form.casefold(): kind for form, kind in kinds.items()}
        longest_first = sorted(kinds, key=len, reverse=True)
        self._known = re.compile(
            "|".join(rf"{_NO_CHIP}(?<![A-Za-z0-9]){re.escape(text)}(?![A-Za-z0-9])" for text in longest_first)
            or r"(?!)",
            re.IGNORECASE,
        )
        self.counts: Counter[str] = Counter()
        self._learned: dict[str, str] = {}
        """keys and serial numbers that were found by what stood around them, which they need not the next time"""

    def __call__(self, text: str) -> str:
        """The text without them."""
        text = self._known.sub(lambda match: self._mark(self._kinds.get(match[0].casefold(), "user name")), text)
        for kind, shape in _SHAPES:
            text = shape.sub(lambda match, kind=kind: self._within(match, kind), text)  # type: ignore[misc]
        for secret in sorted(self._learned, key=len, reverse=True):
            text, count = re.subn(re.escape(secret), f"<{self._learned[secret]}>", text, flags=re.IGNORECASE)
            self.counts[self._learned[secret]] += count
        self.counts = +self.counts
        text = _IPV4.sub(self._address, text)
        return _IPV6.sub(self._address, text)

    def all(self, value: Any) -> Any:
        """Plain data with every string in it redacted; the keys of dictionaries stay."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, Mapping):
            return {key: self.all(one) for key, one in value.items()}
        return [self.all(one) for one in value] if isinstance(value, list | tuple) else value

    def _mark(self, kind: str) -> str:
        self.counts[kind] += 1
        return f"<{kind}>"

    def _within(self, match: re.Match[str], kind: str) -> str:
        """The match with its group, if it has one, replaced."""
        found = next((name for name in match.groupdict() if match[name] is not None), None)
        whole, start = match[0], match.start()
        first, last = match.span(found) if found else match.span()
        if _MARKED.match(match.string, first):
            return whole
        if kind in _LEARNED:
            lines = map(str.strip, match.string[first:last].splitlines())
            self._learned |= {
                line: kind for line in lines if len(line) >= _LEAST_LEARNED and not line.startswith("---")
            }
        return f"{whole[: first - start]}{self._mark(kind)}{whole[last - start :]}"

    def _address(self, match: re.Match[str]) -> str:
        try:
            found = ipaddress.ip_address(match[0].rstrip(".").partition("%")[0])
        except ValueError:
            return match[0]
        harmless = found.is_loopback or found.is_unspecified
        return match[0] if harmless else self._mark("IP address")


def _forms(name: str) -> Iterator[str]:
    """A name as it stands in files, and as programs escape it."""
    for normal in ("NFC", "NFD"):  # a file's name may have either
        text = unicodedata.normalize(normal, name)
        for cased in (text, text.upper(), text.lower(), text.casefold()):  # Weiß is WEISS in capitals
            data = cased.encode(errors="surrogateescape")
            yield cased
            yield quote(data)
            yield shlex.quote(cased).removeprefix("'").removesuffix("'")
            yield escape(cased)
            yield json.dumps(cased)[1:-1]
            yield cased.encode("unicode_escape").decode()
            for pattern in ("\\x{:02x}", "\\{:03o}"):  # of Python, and of git and ls
                yield "".join(chr(byte) if byte < 128 else pattern.format(byte) for byte in data)


def of_this_machine() -> Redactor:
    """For what this machine and its users are called, and the secrets in this process's environment."""
    return Redactor([*_secrets(os.environ), *_hardware(), *_hosts(), *_people()])


def _secrets(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in environ.items():
        if _SECRET_VARIABLE.match(name.upper()) and len(value) >= _LEAST_OPENING:
            yield "key", value


def _hardware() -> Iterator[tuple[str, str]]:
    if sys.platform != "darwin":
        return
    said = process.ask(("/usr/sbin/ioreg", "-rd1", "-c", "IOPlatformExpertDevice"))
    for name, kind in (("IOPlatformSerialNumber", "serial number"), ("IOPlatformUUID", "hardware UUID")):
        yield from ((kind, found) for found in re.findall(rf'"{name}" = "([^"]+)"', said))


def _hosts() -> Iterator[tuple[str, str]]:
    names = {socket.gethostname(), os.uname().nodename}
    if sys.platform == "darwin":
        names |= {
            process.ask(("/usr/sbin/scutil", "--get", name)) for name in ("ComputerName", "LocalHostName", "HostName")
        }
    for name in names:
        yield "host name", name
        yield "host name", name.strip().partition(".")[0]


def _people() -> Iterator[tuple[str, str]]:
    """The caller, who called sudo, and everybody with a home here; the directory of an organisation is not read."""
    names = {os.environ.get(name, "") for name in ("USER", "LOGNAME", "SUDO_USER")}
    for folder in _HOMES:
        with suppress(OSError):
            names |= {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
    users = {os.getuid(), os.geteuid()}
    for uid in users:
        with suppress(KeyError):
            names.add(pwd.getpwuid(uid).pw_name)
    for name in names:
        yield "user name", name
        with suppress(KeyError):
            user = pwd.getpwnam(name)
            yield "home folder", user.pw_dir if len(user.pw_dir) > len("/home/") else ""
            yield from _of_person(user.pw_gecos.split(",")[0])
    home = os.environ.get("HOME", "")
    yield "home folder", home if len(home) > 1 and home != "/root" else ""


def _of_person(full: str) -> Iterator[tuple[str, str]]:
    """A full name, and each part of it."""
    if full.casefold() in _PUBLIC:
        return
    yield "real name", full
    yield from (("real name", part) for part in full.split() if len(part) >= _LEAST_NAME)
