"""What was planted in the output of a program is in no file of the report."""

from __future__ import annotations

import string
import tarfile
import tempfile
import time
import uuid
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from toolchain.core import records
from toolchain.firstrun import redaction
from toolchain.firstrun.assumption import Area, Assumption, Finding
from toolchain.firstrun.bench import Evidence
from toolchain.firstrun.redaction import Redactor
from toolchain.firstrun.report import Report

LETTERS = string.ascii_letters + string.digits
noise = st.text(st.sampled_from(LETTERS + " \n\t.,:;/-_=<>()[]{}'\"%@|\\$é漢"), max_size=60)
apart = st.sampled_from([" ", "\n", "\t", " (", "'", '"', ", "])
name = st.text(string.ascii_lowercase, min_size=6, max_size=12).map(lambda text: f"q{text}x")
token = st.text(LETTERS, min_size=20, max_size=40)
octet = st.integers(1, 223)
variable = st.sampled_from(
    [
        "HF_TOKEN",
        "OPENAI_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "GITHUB_TOKEN",
        "DB_PASSWORD",
        "MYKEY",
        "SSH_AUTH_SOCK",
        "PASS",
    ]
)
hexadecimal = st.text("0123456789abcdef", min_size=2, max_size=2)


@st.composite
def planted(draw: st.DrawFn) -> tuple[str, str, str]:
    """A secret, how it stands in an output, and its kind."""
    secret = draw(token)
    kind = draw(st.sampled_from(sorted(SHAPES)))
    return SHAPES[kind](draw, secret)


def _host(draw: st.DrawFn, _secret: str) -> tuple[str, str, str]:
    address = f"{draw(st.integers(128, 223))}.{draw(octet)}.{draw(octet)}.{draw(octet)}"
    return (
        address,
        draw(st.sampled_from([address, f"{address}:8080", f"http://{address}/x", f"{address}/24"])),
        "IP address",
    )


def _ipv6(draw: st.DrawFn, _secret: str) -> tuple[str, str, str]:
    address = f"fe80::{draw(hexadecimal)}1:{draw(hexadecimal)}ff:fe00:{draw(hexadecimal)}ab"
    return (
        address,
        draw(st.sampled_from([address, f"[{address}]", f"{address}%en0", f"inet6 {address} prefixlen"])),
        "IP address",
    )


def _mac(draw: st.DrawFn, _secret: str) -> tuple[str, str, str]:
    address = ":".join(draw(hexadecimal) for _ in range(6))
    return address, f"ether {address}", "hardware address"


def _mail(draw: st.DrawFn, _secret: str) -> tuple[str, str, str]:
    address = f"{draw(name)}@{draw(name)}.example.com"
    return address, draw(st.sampled_from([address, f"<{address}>", f"mailto:{address}"])), "e-mail address"


def _uuid(draw: st.DrawFn, _secret: str) -> tuple[str, str, str]:
    found = str(draw(st.uuids())).upper()
    return (
        found,
        draw(st.sampled_from([found, f'"IOPlatformUUID" = "{found}"', f"Hardware UUID: {found}"])),
        "hardware UUID",
    )


def _serial(draw: st.DrawFn, secret: str) -> tuple[str, str, str]:
    serial = secret[:12].upper()
    forms = [f'"IOPlatformSerialNumber" = "{serial}"', f"Serial Number (system): {serial}", f"serial_number: {serial}"]
    return serial, draw(st.sampled_from(forms)), "serial number"


def _variable(draw: st.DrawFn, secret: str) -> tuple[str, str, str]:
    key = draw(variable)
    value = f"{secret[:10]} {secret[10:]}"
    forms = [
        f"{key}={value}\n",
        f"export {key}={value}\n",
        f"{key} => {value}\n",
        f'"{key}": "{value}"',
        f"{key}: {value}\n",
    ]
    return value, draw(st.sampled_from(forms)), "key"


def _word(draw: st.DrawFn, secret: str) -> tuple[str, str, str]:
    forms = [
        f"password={secret}\n", f'"api_key": "{secret}"', f"api-key: {secret}\n", f"Authorization: Bearer {secret}\n",
        f"access_token={secret}\n", f"client_secret = {secret}\n", f"https://u:{secret}@example.com/x",
    ]  # fmt: skip
    return secret, draw(st.sampled_from(forms)), "key"


def _shape(draw: st.DrawFn, secret: str) -> tuple[str, str, str]:
    prefix = draw(st.sampled_from(["sk-", "ghp_", "github_pat_", "hf_", "xoxb-", "AKIA", "glpat-", "eyJ"]))
    return f"{prefix}{secret}", f"{prefix}{secret}", "key"


def _pem(_draw: st.DrawFn, secret: str) -> tuple[str, str, str]:
    kind = "PRIVATE KEY"
    return secret, f"-----BEGIN OPENSSH {kind}-----\nabc\n{secret}\n-----END OPENSSH {kind}-----", "key"


def _folder(draw: st.DrawFn, _secret: str) -> tuple[str, str, str]:
    user = draw(name)
    return (
        user,
        draw(st.sampled_from([f"/Users/{user}/x", f"/home/{user}", f"file:///Users/{user}/Library"])),
        "user name",
    )


SHAPES = {
    one.__name__: one for one in (_host, _ipv6, _mac, _mail, _uuid, _serial, _variable, _word, _shape, _pem, _folder)
}


@settings(max_examples=250)
@given(st.lists(st.tuples(noise, apart, planted(), apart), min_size=1, max_size=4), noise)
def test_what_has_a_shape_is_gone(parts: list[tuple[str, str, tuple[str, str, str], str]], end: str) -> None:
    for before, *_ in parts:
        assume(not any(secret.casefold() in (before + end).casefold() for _, _, (secret, _, _), _ in parts))
    text = "".join(f"{before}{left}{shown}{right}" for before, left, (_, shown, _), right in parts) + end
    redact = Redactor([])
    result = redact(text)
    for _, _, (secret, _, _), _ in parts:
        assert secret.casefold() not in result.casefold(), (text, result)
    assert sum(redact.counts.values()) >= 1


@settings(max_examples=100)
@given(noise, apart, name, name, name, apart, noise, st.sampled_from([str.lower, str.upper, str.title]))
def test_what_is_known_is_gone(
    before: str, left: str, user: str, host: str, person: str, right: str, after: str, spelled: object
) -> None:
    assert callable(spelled)
    full = f"{person.title()} Müller-{host}"
    redact = Redactor(
        [
            ("home folder", f"/Users/{user}"),
            ("user name", user),
            ("host name", f"{host}.local"),
            ("host name", host),
            ("real name", full),
        ]
    )
    text = f"{before}{left}/Users/{user}/x {spelled(user)} {user}_key {host}.local {spelled(host)} {full}{right}{after}"
    result = redact(text).casefold()
    for secret in {user, host, full}:
        assert secret.casefold() not in result, (text, result)


@settings(max_examples=15)
@given(noise, planted(), name)
def test_nothing_reaches_the_archive(text: str, secret: tuple[str, str, str], user: str) -> None:
    hidden, shown, _ = secret
    assume(hidden.casefold() not in text.casefold())
    area = Area(name="a", assumptions=(Assumption(id="a.b", statement="It holds."),), examine=lambda _: iter(()))
    seen = Evidence(command=f"cat /Users/{user}/x", code=0, seconds=0.1, output=f"{text} {shown} {user}\n")
    redactor = Redactor([("user name", user)])
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.tar.gz"
        report = Report(out, [area], machine="Mac", system=f"macOS of {user}", toolkit="1", redactor=redactor)
        report.found(Finding(id="a.b", status="refuted", reason=f"it says {shown} {user}", evidence=(seen,)))
        report.examined(area, [seen], 0.1, error=f"failed: {shown} {user}")
        report.left = (f"pid 1 of {user}",)
        summary = report.save()
        with tarfile.open(out) as archive:
            files = [archive.extractfile(member) for member in archive.getmembers()]
            content = b"".join(file.read() for file in files if file).decode()
            names = archive.getnames()
            assert {(member.uid, member.gid, member.uname, member.gname) for member in archive} == {(0, 0, "", "")}
    printed = records.to_json(summary)
    assert names == ["summary.json", "summary.md", "raw/a/0001.txt"]
    for secret_text in (hidden, user):
        assert secret_text.casefold() not in content.casefold()
        assert secret_text.casefold() not in printed.casefold()
    assert summary.redacted["user name"] >= 5


@pytest.mark.parametrize(
    "text",
    [
        "llama_kv_cache: size = 128.00 MiB (4096 cells, 32 layers), K (turbo4): 64.00 MiB",
        "tokens = 10, prompt tokens: 20, n_keys=3",
        "listening on 127.0.0.1:11434 and [::1]:11434",
        "std::vector<ggml::abc> at 12:34:56, 2026-11-26T14:10:04Z",
        "\tstate = running\n\tpid = 4711\n\truns = 1\n\tpath = /Library/LaunchDaemons/x.plist",
        "macOS 15.6 (24G84), b10488, sha256 4f4b9ab8843f857a15d4ea57594a9c54fe84b06462aa79e47c49f622ae3df7b6",
        "root 0 /usr/bin /Users/Shared/x nobody",
        "a Mac, MacBook-Pro.local",
    ],
)
def test_the_rest_stays(text: str) -> None:
    known = [("user name", "root"), ("user name", "q"), ("host name", "Mac"), ("host name", "MacBook-Pro.local")]
    assert Redactor(known)(text) == text


def test_the_server_of_an_organisation_is_gone() -> None:
    said = "MDM enrollment: Yes (User Approved)\nMDM server: https://mdm.example.com/x"
    assert Redactor([])(said) == "MDM enrollment: Yes (User Approved)\nMDM server: <server of an organisation>"


def test_a_key_that_was_seen_once_is_known_from_then_on() -> None:
    redact = Redactor([])
    assert redact("HF_TOKEN=abcdefgh1234\nabcdefgh1234") == "HF_TOKEN=<key>\n<key>"
    assert redact("curl -H abcdefgh1234") == "curl -H <key>"


def test_this_machine_knows_its_own_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = f"two lines\n{uuid.uuid4().hex}"
    monkeypatch.setenv("MY_SERVICE_TOKEN", secret)
    monkeypatch.setenv("SUDO_USER", "quentin-tarr")
    redact = redaction.of_this_machine()
    assert redact(f"it printed {secret} of quentin-tarr") == "it printed <key> of <user name>"
    assert redact.counts == {"key": 1, "user name": 1}


@pytest.mark.parametrize("unit", ["a_b-c.", "serial (a", "ecdsa-sha2-", "A_KEY", "a:b:", "://a"])
def test_a_long_word_takes_no_longer_than_other_text(unit: str) -> None:
    """As in minified JSON or base64; time that grows with the square of the length would be minutes here."""
    text = unit * (200_000 // len(unit))
    started = time.process_time()
    redaction.Redactor([])(text)
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Weiß", "Weiß weiß WEISS weiss"),
        ("İbrahim", "İbrahim /x/İbrahim/y"),
        ("Jürgen", r"J\xfcrgen J\u00fcrgen J%C3%BCrgen J\xc3\xbcrgen J\303\274rgen Ju%CC%88rgen JÜRGEN"),
        ("Anna Smith", "file:///x/Anna%20Smith/y"),
        ("o'brien", """'/x/o'"'"'brien/y'"""),
        ("R&D-Mac-of-Anna", "<string>R&amp;D-Mac-of-Anna</string>"),
    ],
)
def test_a_name_is_gone_as_programs_write_it(name: str, said: str) -> None:
    words = said.split(" ") if " " not in name else [said]
    for word in words:
        found = Redactor([("user name", name)])(word)
        assert found.count("<user name>") == 1, word
        assert not set("irgen") <= set(found.replace("<user name>", "")), word


@pytest.mark.parametrize(
    ("said", "clean"),
    [
        ("llama-server --api-key q8Zfw1 --port 1", "llama-server --api-key <key> --port 1"),
        ("https://example.com/x?token=q8Zfw1&a=b", "https://example.com/x?token=<key>&a=b"),
        ("<key>OLLAMA_API_KEY</key>\n\t<string>q8Zfw1</string>", "<key>OLLAMA_API_KEY</key>\n\t<string><key></string>"),
        ("/private/var/folders/zz/zyxvpxvq6c_n000/T/x", "/private/var/folders/<temporary folder>/T/x"),
        ("<key>PathState</key>\n<string>here</string>", "<key>PathState</key>\n<string>here</string>"),
        ("--token-count 5, --cookie-file --x", "--token-count 5, --cookie-file --x"),
    ],
)
def test_more_shapes(said: str, clean: str) -> None:
    assert Redactor([])(said) == clean


def test_a_name_of_one_letter_and_a_chip_stay() -> None:
    redact = Redactor([("host name", "a"), ("real name", "Max"), ("real name", "Max Muster")])
    said = "a service on Apple M3 Max and M10 Max"
    assert redact(f"{said} of Max, Max Muster") == f"{said} of <real name>, <real name>"
