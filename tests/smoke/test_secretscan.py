"""Secrets are found by what detect-secrets knows, whatever kind of file holds them, and are not repeated."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from toolchain.smoke import Fault, secretscan, tree

from .test_check import repository

# Put together here, so that this file holds none.
TOKEN = "ghp_" + "wWPw5k4aXc" + "aT4fNP0Ucn" + "ZwJUVFk6LO" + "0pINUx"
AWS = "AKIA" + "QYLPMN5HFIQR7BBB"
KEY = "-----BEGIN OPENSSH " + "PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n"
BASE64 = "c3VwZXIgbG9uZ" + "yBzdHJpbmcgc2" + "hvdWxkIGNhdXN" + "lIGVub3VnaCBl" + "bnRyb3B5"


def found(folder: Path, files: dict[str, str | bytes]) -> list[tuple[str, int, str]]:
    faults = [*secretscan.faults(tree.files(repository(folder, files)))]
    assert all(isinstance(one, Fault) for one in faults)
    return [(one.path, one.line, one.reason.split("(")[1].split(")")[0]) for one in faults if isinstance(one, Fault)]


@pytest.mark.parametrize(
    ("name", "text", "line", "kind"),
    [
        ("a.py", f"a = 1\ntoken = '{TOKEN}'\n", 2, "GitHub Token"),
        ("a.md", f"\n\nAWS_ID={AWS}\n", 3, "AWS Access Key"),
        ("a.txt", KEY, 1, "Private Key"),
        ("a.c", KEY, 1, "Private Key"),
        ("id", KEY, 1, "Private Key"),
        ("a.py", f'x = "{BASE64}"\n', 1, "Base64 High Entropy String"),
        ("a.yaml", f"a: 1\nx: {BASE64}\n", 2, "Base64 High Entropy String"),
        ("a.py", 'password = "correct horse"\n', 1, "Secret Keyword"),
        ("a.yaml", "a:\n  password: correct-horse\n", 2, "Secret Keyword"),
        ("a.cfg", "[a]\npassword = correct-horse\n", 2, "Secret Keyword"),
        ("a.go", 'func a() {\n\tapiKey := "correct-horse"\n}\n', 2, "Secret Keyword"),
        ("a.py", 'a = "https://me:correct-horse@example.org"\n', 1, "Basic Auth Credentials"),
        ("tests/a.py", f'a = "{TOKEN}"\n', 1, "GitHub Token"),
        ("templates/a.sh.j2", f'{{% if a %}}\nA="{TOKEN}"\n', 2, "GitHub Token"),
        ("run", f'#!/bin/sh\nexport A="{TOKEN}"\n', 2, "GitHub Token"),
        ("workflow.yml", f"env:\n  TOKEN: {TOKEN}\n", 2, "GitHub Token"),
    ],
)
def test_a_secret_is_found(tmp_path: Path, name: str, text: str, line: int, kind: str) -> None:
    assert (name, line, kind) in found(tmp_path, {name: text})


def test_what_is_no_secret(tmp_path: Path) -> None:
    digest = "bde8ea807b378c0384bba4ae59a3ea54a0403d430225b70bc2f7d5d5937350e6"
    files: dict[str, str | bytes] = {
        "a.py": f'A = "{digest}"\nB = {{"API_KEY": "deploy.api_key_file"}}\n',
        "tests/a.py": 'password = "hunter2hunter2"\na = "http://me:hunter2@proxy"\n',
        "allowed.py": f'A = "{TOKEN}"  # pragma: allowlist secret\n',
        "requirements.lock": f"a==1 --hash=sha256:{digest}\n",
    }
    assert found(tmp_path, files) == []


def test_the_secret_is_not_repeated(tmp_path: Path) -> None:
    faults = [*secretscan.faults(tree.files(repository(tmp_path, {"a.py": f'A = "{TOKEN}"\n'})))]
    assert faults
    assert TOKEN not in "".join(map(str, faults))


def test_without_detect_secrets_nothing_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (one,) = secretscan.faults(tree.files(repository(tmp_path, {"a.py": f'A = "{TOKEN}"\n'})))
    assert not isinstance(one, Fault)
    assert "TURBOQUANT_EXTRAS=dev" in one.hint
