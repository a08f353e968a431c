"""A double of codesign, rcodesign and xcrun notarytool, for machines without Apple's tools: `NAME ARGUMENTS...`.

It models their command lines as we use them, what they do to a Mach-O file (machos.sign), their exit codes and what
they print; an option that is not listed here ends it with 2, as the real ones do. It may differ: certificates are not
looked at, a CMS signature is some bytes with the marks of a Developer ID or a time stamp, and the notary is the file
`notary` in the folder $SIGNING_DOUBLE. That folder has `fault` (a word, see `_FAULTS`), and gets `calls`, a line of
JSON for each call. rcodesign's part was compared with version 0.29; Apple's was written from knowledge of their command
lines, without their manual pages.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from tests.publishing import machos

HOME = Path(os.environ.get("SIGNING_DOUBLE", "."))
IDENTITY = "Developer ID Application: Example (TEAM123456)"
SUBMISSION = "2efe2717-52ef-43a5-96dc-0797e4ca1041"
_FAULTS = (
    "locked",
    "keeps entitlements",
    "changes content",
    "does nothing",
    "no runtime",
    "hangs",
    "agreement",
    "key",
    "unknown ticket",
)
_SIGN = {"--sign": 1, "--force": 0, "--options": 1, "--identifier": 1}
_RCODESIGN = {
    "--binary-identifier": 1, "--timestamp-url": 1, "--for-notarization": 0, "--pem-file": 1, "--p12-file": 1,
    "--p12-password-file": 1,
}  # fmt: skip
_NOTARYTOOL = {"--key": 1, "--key-id": 1, "--issuer": 1, "--output-format": 1, "--timeout": 1}
_NOTARY = {"--api-key-file": 1, "--max-wait-seconds": 1}


def fault() -> str:
    """How this program fails, if it does."""
    file = HOME / "fault"
    word = file.read_text() if file.is_file() else ""
    assert word in ("", *_FAULTS)
    return word


def parsed(words: list[str], known: dict[str, int]) -> tuple[dict[str, str], list[str]]:
    """Options with their values, and the rest."""
    options, rest = {}, []
    while words:
        word = words.pop(0)
        if word.startswith("--"):
            if word not in known:
                end(f"unrecognized option '{word}'", 2)
            options[word] = words.pop(0) if known[word] else ""
        else:
            rest.append(word)
    return options, rest


def end(said: str, code: int) -> None:
    """Print to stderr, and end."""
    sys.stderr.write(f"{said}\n")
    raise SystemExit(code)


def signed(path: Path, identifier: str, *, runtime: bool, cms: bytes) -> None:
    """Sign a file in place."""
    word = fault()
    if word == "locked":
        end(f"{path}: errSecInternalComponent", 1)
    if word == "does nothing":
        return
    flags = (machos.RUNTIME if runtime and word != "no runtime" else 0) | (0 if cms else machos.ADHOC)
    data = path.read_bytes()
    if word == "changes content":
        data = data.replace(b"code", b"evil")
    path.write_bytes(
        machos.sign(
            data, identifier, flags=flags, cms=cms, team="TEAM123456" if machos.DEVELOPER_ID in cms else "",
            entitlements=b"<plist/>" if word == "keeps entitlements" else b"",
        )
    )  # fmt: skip


def codesign(words: list[str]) -> None:
    """`codesign --sign`, and `--verify --strict`, which only looks for a signature."""
    if words[:2] == ["--verify", "--strict"]:
        files = [one for one in words[2:] if one not in ("--check-notarization", "-R=notarized")]
        assert len(files) == 1
        if "-R=notarized" in words and fault() == "unknown ticket":
            end(f"{files[-1]}: code failed to satisfy specified code requirement(s)", 3)
        if b"\xfa\xde\x0c\xc0" not in Path(files[-1]).read_bytes():
            end(f"{files[-1]}: code object is not signed at all", 1)
        return
    stamped = "--timestamp" in words
    unstamped = "--timestamp=none" in words
    assert stamped != unstamped, "Apple's default depends on the identity"
    options, (name,) = parsed([one for one in words if not one.startswith("--timestamp")], _SIGN)
    path = Path(name)
    if "--force" not in options and b"\xfa\xde\x0c\xc0" in path.read_bytes():
        end(f"{path}: is already signed", 1)
    identity = options["--sign"]
    if identity not in ("-", IDENTITY, "Self"):
        end(f"{identity}: no identity found", 1)
    cms = b"" if identity == "-" else b"cms" + (machos.DEVELOPER_ID if identity == IDENTITY else b"")
    runtime = options.get("--options") == "runtime"
    signed(path, options["--identifier"], runtime=runtime, cms=cms + machos.TIMESTAMP if stamped and cms else cms)


def rcodesign(words: list[str]) -> None:
    """`rcodesign sign`, and its notary commands, which end with 0 whatever the notary's answer is."""
    verb = words.pop(0)
    if verb != "sign":
        notary(verb.removeprefix("notary-"), *parsed(words, _NOTARY), limit="--max-wait-seconds")
        return
    options, (name,) = parsed(words, _RCODESIGN)
    certificate = options.get("--p12-file") or options.get("--pem-file")
    for given in filter(None, (certificate, options.get("--p12-password-file"))):
        if not Path(given).is_file():
            end("Error: I/O error: No such file or directory (os error 2)", 1)
    official = "--for-notarization" in options
    cms = b"cms" + (machos.DEVELOPER_ID if official else b"") if certificate else b""
    if cms and options.get("--timestamp-url") != "none":
        cms += machos.TIMESTAMP
    signed(Path(name), options["--binary-identifier"], runtime=official, cms=cms)


def xcrun(words: list[str]) -> None:
    """`xcrun notarytool`."""
    assert words.pop(0) == "notarytool"
    verb = words.pop(0)
    options, rest = parsed(words, _NOTARYTOOL)
    assert {"--key", "--key-id", "--issuer"} <= options.keys()
    notary(verb, options, rest, limit="--timeout")


def notary(verb: str, options: dict[str, str], rest: list[str], *, limit: str) -> None:
    """Apple's notary: the file `notary` is its answer, a log."""
    word = fault()
    if word == "agreement":
        end("Error: HTTP status code: 403. A required agreement is missing or has expired.", 1)
    if word == "key":
        end("Error: HTTP status code: 401. Unauthenticated.", 1)
    if verb == "submit":
        assert Path(rest[0]).read_bytes().startswith(b"PK")
        if limit == "--timeout":
            said = {"id": SUBMISSION, "message": "Successfully uploaded file", "path": rest[0]}
            sys.stdout.write(json.dumps(said))
        else:
            sys.stderr.write(f"created submission ID: {SUBMISSION}\n")
        return
    assert rest == [SUBMISSION]
    if verb == "wait" and word == "hangs":
        time.sleep(600)
    if verb == "wait" and not (HOME / "notary").is_file():
        assert int(options[limit]) > 0
        end("Error: reached time limit waiting for notarization to complete", 1)
    if verb == "log":
        sys.stdout.write((HOME / "notary").read_text())


def main() -> None:
    """Act as the program that the first argument names."""
    name, *words = sys.argv[1:]
    with (HOME / "calls").open("a") as file:
        file.write(json.dumps([name, *words]) + "\n")
    {"codesign": codesign, "rcodesign": rcodesign, "xcrun": xcrun}[name](words)


if __name__ == "__main__":
    main()
