"""What `release.verify` says of attacks: one for each word here, all of them by python -m tests.publishing.attacks."""

from __future__ import annotations

import random
import shutil
from datetime import UTC
from pathlib import Path

import pytest
import requests

from toolchain.core.delivery_errors import ForgeUnavailable
from toolchain.publishing import checking, download

from .attacks import ATTACKS, Attack, refusal
from .server import serving
from .tuf_attacks import TUF_ATTACKS
from .world import World, run_in

SEED = 20261126
_SLOW = ("a byte a second", "never ends")
_SAMPLE = list({one.word: one for one in random.Random(SEED).sample(ATTACKS, len(ATTACKS))}.values())
_TUF_SAMPLE = [one for one in TUF_ATTACKS if not one.name.endswith(_SLOW)][::3]


@pytest.mark.slow
@pytest.mark.parametrize("one", _SAMPLE, ids=lambda one: one.name)
def test_an_attack_is_refused_with_its_own_error(changed: World, tmp_path: Path, one: Attack) -> None:
    random.seed(SEED)
    said = refusal(changed, one, tmp_path, timeout_s=1.0 if one.name.endswith(_SLOW) else 30.0)
    assert type(said) is one.error, said
    assert not list(tmp_path.rglob("llama-server"))


@pytest.mark.slow
@pytest.mark.parametrize("one", _TUF_SAMPLE, ids=lambda one: one.name)
def test_an_attack_on_tuf_is_refused(changed: World, tmp_path: Path, one: Attack) -> None:
    said = refusal(changed, one, tmp_path, timeout_s=30.0, tuf=True)
    assert type(said) is one.error, said


def test_every_word_is_attacked_and_every_name_is_unique() -> None:
    assert len({one.name for one in (*ATTACKS, *TUF_ATTACKS)}) == len(ATTACKS) + len(TUF_ATTACKS)
    assert {one.word for one in ATTACKS} == {one.word for one in _SAMPLE}


@pytest.mark.slow
def test_an_untouched_publication_is_accepted_in_each_form(untouched: World, tmp_path: Path) -> None:
    run = run_in(tmp_path)
    trust = checking.Trust(signers=untouched.signers, revoked=untouched.revoked, tuf_root=untouched.tuf_root)
    channel = checking.verify(run, untouched.publication.folder.as_uri(), trust)
    assert (channel.kind, channel.release, channel.channel_sequence) == ("channel", untouched.newer, 2)
    assert {"archive", "members", "The Update Framework", "validity", "sequence"} <= {
        one.what for one in channel.points
    }
    again = checking.verify(run, str(untouched.publication.folder), trust, name="beta")
    assert (again.channel, again.channel_sequence) == ("beta", 1)
    release = checking.verify(run, str(untouched.publication.release(untouched.older)), trust)
    assert (release.kind, release.release, release.sequence) == ("release", untouched.older, 1)
    assert not list(tmp_path.rglob("llama-server"))


def test_a_server_cannot_offer_a_release_instead_of_the_channel(changed: World, tmp_path: Path) -> None:
    for suffix in ("", ".sig"):
        old = changed.publication.release_file(changed.older)
        shutil.copy(f"{old}{suffix}", changed.publication.folder / f"release.json{suffix}")
    run, trust = run_in(tmp_path), checking.Trust(signers=changed.signers)
    with serving(changed.publication.folder) as url:
        for place, name, kind in (
            (url, "", "channel"),
            (url, "beta", "channel"),
            (f"{url}/releases/{changed.older}", "", "release"),
            (f"{url}/releases/{changed.older}/release.json", "", "release"),
        ):
            found = checking.verify(run, place, trust, name=name, files=kind == "release")
            assert (found.kind, found.release) == (kind, changed.newer if kind == "channel" else changed.older)


def test_a_password_in_a_url_is_shown_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ForgeUnavailable) as caught:
        checking.verify(run_in(tmp_path), "http://me:secret@127.0.0.1:1/there", checking.Trust(signers=None))
    assert "secret" not in str(caught.value)
    assert "http://127.0.0.1:1/there/channels/stable.json: no complete answer: Connection refused" in str(caught.value)


@pytest.mark.parametrize(
    ("date", "age", "hour"),
    [
        ("Thu, 26 Nov 2026 18:00:00 GMT", "3600", 19),
        ("Thu, 26 Nov 2026 18:00:00 -0000", "08", 18),
        ("Thu, 26 Nov 2026 20:00:00 +0200", "0", 18),
        ("Thu, 26 Nov 2026 18:00:00 GMT", "9" * 20, None),
        ("soon", "0", None),
        (None, "0", None),
    ],
)
def test_whatever_a_server_states_of_the_time_is_no_crash(date: str | None, age: str, hour: int | None) -> None:
    origin, answer = download.source("http://127.0.0.1:1", 1.0), requests.Response()
    answer.status_code = 200
    answer.headers.update({"Age": age} | ({"Date": date} if date else {}))
    assert isinstance(origin, download._Server)
    origin._look_at(answer, "")
    found = origin.date.astimezone(UTC) if origin.date else None
    assert (found.hour if found else None) == hour
