"""The attacks of `tests.publishing.attacks` on a Mac where a release runs: what tq says, and what runs afterwards.

python -m tests.provisioning.attacked [NUMBER...]     prints a table; 1 if one of them had an effect
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from tests.publishing import world as worlds
from tests.publishing.attacks import ATTACKS, Attack
from tests.publishing.server import serving
from tests.publishing.world import World
from toolchain.provisioning import tq

from .place import Mac, Said

PATIENCE_S = 3
"""for the network"""


def make(folder: Path) -> Mac:
    """A Mac where release 1 runs."""
    mac = Mac.make(folder)
    mac.publisher.promote(mac.release("1", 1))
    mac.run("apply", expect=10)
    return mac


def prepare(mac: Mac) -> World:
    """A world of releases that a Mac would install next."""
    for name in ("stable.json", "stable.json.sig"):  # which tq would go by where the network is down
        (mac.prefix / "channel" / name).unlink()
    folder = mac.site.folder
    shutil.copytree(mac.prefix / "channel", folder / "channel")
    (folder / "world").mkdir()
    return worlds.make(folder / "world", tq.render())


def attack(mac: Mac, world: World, one: Attack) -> tuple[Said, str]:
    """What tq says of an attack, and what is wrong afterwards; empty if nothing is."""
    before, folder = mac.site.status(), mac.site.folder / "attacked"
    folder.mkdir()
    changed = world.copy(folder)
    try:
        with serving(changed.publication.folder) as url:
            mac.want(channel_url=url, signers=str(changed.signers), revoked_keys=str(changed.revoked))
            if one.seen_before:  # it lacks the cache type: seen, and not installed
                mac.run("apply", expect=3)
            mac.tq.write_bytes(tq.render() + b"# another\n" * one.fetches_provisioner)
            url.behave(one.prepare(changed))
            said = mac.run("apply", TURBOQUANT_PATIENCE_S=str(PATIENCE_S))
        after = mac.site.status()
    finally:
        shutil.rmtree(mac.prefix / "channel")
        shutil.copytree(mac.site.folder / "channel", mac.prefix / "channel")
        shutil.rmtree(folder)
    wrong = []
    if (said.code, said.json["error"]) != (one.code, one.word):
        wrong.append(f"{said.code} {said.json['error']}, not {one.code} {one.word}")
    if (after.active, after.pid, after.healthy, after.releases) != (before.active, before.pid, True, before.releases):
        wrong.append(f"afterwards: {after}")
    return said, "; ".join(wrong)


def main(numbers: list[str]) -> int:
    """Run all attacks, print what was said; how many had an effect or another answer."""
    wrong = 0
    chosen = [(n, one) for n, one in enumerate(ATTACKS, 1) if not one.documents and (not numbers or str(n) in numbers)]
    with tempfile.TemporaryDirectory(prefix="attacked-") as folder:
        mac = make(Path(folder))
        try:
            world = prepare(mac)
            for number, one in chosen:
                said, why = attack(mac, world, one)
                wrong += bool(why)
                row = f"{number:>2} {'FAILED' if why else 'ok':<6} {one.name:<58} {said.code}"
                row += f"  {said.json['message'][:90]}" + (f"\n   {why}\n{said.log}" if why else "")
                print(row, flush=True)  # noqa: T201
        finally:
            mac.close()
    print(f"{len(chosen)} attacks, {wrong} failed")  # noqa: T201
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
