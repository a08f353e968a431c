"""An inventory is read with its defaults, or refused with file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from toolchain.core.delivery_errors import InventoryInvalid
from toolchain.fleet import inventory
from toolchain.fleet.rules import Rules

PRINT = "SHA256:" + "A" * 43
GOOD = f"""\
defaults:
  user: admin
  sudo: yes
  desired:
    channel_url: https://example.org/turboquant
    kv_cache_type: turbo4
    gpu: required
rollout:
  canary: 2
  min_healthy_time: 1m
  max_failures: 20%
  auto_revert: wave
hosts:
  - name: mac-2
    address: 10.0.0.2
    wave: 2
    fingerprint: {PRINT}
  - name: mac-1
    address: mac-1.example.org
    port: 2222
    user: alice
    sudo: no
    fingerprint: [{PRINT}, "SHA256:{"B" * 43}"]
    desired:
      kv_cache_type: q8_0:turbo4
      keep: 5
      env.OLLAMA_KEEP_ALIVE: 30m
"""


def read(folder: Path, text: str) -> inventory.Inventory:
    path = folder / "fleet.yaml"
    path.write_text(text)
    return inventory.load(path)


def test_what_a_host_does_not_state_the_defaults_state(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD)
    first, second = found.hosts  # in the order of their waves
    assert (first.name, first.wave, first.user, first.port, first.sudo) == ("mac-1", 1, "alice", 2222, False)
    assert (second.name, second.wave, second.user, second.port, second.sudo) == ("mac-2", 2, "admin", 22, True)
    assert len(first.fingerprints) == 2
    assert second.desired == {
        "channel_url": "https://example.org/turboquant", "kv_cache_type": "turbo4", "gpu": "required",
    }  # fmt: skip
    assert first.desired["kv_cache_type"] == "q8_0:turbo4"


def test_the_rules_are_nomads_where_nothing_is_stated(tmp_path: Path) -> None:
    stated, usual = read(tmp_path, GOOD).rules, Rules()
    assert (stated.canary, stated.min_healthy_time, stated.max_failures, stated.auto_revert) == (2, 60, "20%", "wave")
    assert (usual.canary, usual.max_parallel, usual.min_healthy_time, usual.healthy_deadline) == (1, 1, 10, 300)
    assert (usual.progress_deadline, usual.stagger, usual.auto_revert, usual.max_failures) == (600, 30, True, 0)
    assert stated == read(tmp_path, yaml.safe_dump(yaml.safe_load(GOOD))).rules


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("    port: 2222", "    port: 70000", 20, "hosts[1].port: Expected `int` <= 65535"),
        ("    port: 2222", "    prot: 2222", 20, "unknown field `prot`"),
        ("  canary: 2", "  canaries: 2", 9, "unknown field `canaries`"),
        ("  canary: 2", "  canary: -1", 9, "rollout.canary"),
        ("min_healthy_time: 1m", "min_healthy_time: 1 minute", 10, "rollout.min_healthy_time"),
        ("min_healthy_time: 1m", "min_healthy_time: 10m", 9, "shorter than min_healthy_time"),
        ("max_failures: 20%", "max_failures: 200%", 11, "rollout.max_failures"),
        ("max_failures: 20%", "min_tokens_per_second: 20", 11, "needs `speed_model`"),
        ("name: mac-1", "name: mac-2", 18, "mac-2 has the same name"),
        ("name: mac-1", "name: '-oProxyCommand=x'", 18, "hosts[1].name"),
        ("address: mac-1.example.org", "address: 'root@evil'", 19, "hosts[1].address"),
        ("address: mac-1.example.org", "address: mac-1:2222", 19, "hosts[1].address"),
        ("address: mac-1.example.org\n    port: 2222", "address: 10.0.0.2", 19, "mac-2 has the same address"),
        (f"    fingerprint: {PRINT}\n", "", 14, "neither `fingerprint` nor `known_hosts`"),
        (f"fingerprint: {PRINT}\n", "fingerprint: MD5:aa\n", 17, "hosts[0].fingerprint"),
        (f"fingerprint: {PRINT}\n", "known_hosts: missing\n", 17, "there is no such file"),
        ("  user: admin\n", "", 13, "mac-2 has no `user`"),
        ("user: alice", "user: 'alice; reboot'", 21, "hosts[1].user"),
        ("keep: 5", 'keep: "5\\nstate=absent"', 26, "hosts[1].desired.keep: the value of keep"),
        ("keep: 5", "Keep: 5", 26, "hosts[1].desired"),
        ("keep: 5", "signers: /tmp/mine", 26, "hosts[1].desired.signers: it is a key of the inventory"),
        ("keep: 5", "kv_cache_type: f16", 26, "occurs twice"),
        ("keep: 5", "kepe: 5", 26, "hosts[1].desired.kepe: unknown key 'kepe'"),
        ("env.OLLAMA_KEEP_ALIVE: 30m", "env.A-B: 1", 27, "hosts[1].desired.env.A-B"),
        ("keep: 5", "keep: [5]", 24, "hosts[1].desired"),
        ("    channel_url: https://example.org/turboquant\n", "", 13, "mac-2 has no `channel_url`"),
        ("hosts:", "hosts: [", 14, "not YAML"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, old: str, new: str, line: int, said: str) -> None:
    assert old in GOOD
    with pytest.raises(InventoryInvalid) as error:
        read(tmp_path, GOOD.replace(old, new, 1))
    assert error.value.exit_code == 79
    assert said in error.value.message
    assert error.value.message.startswith(f"{tmp_path}/fleet.yaml:{line}:")


@pytest.mark.parametrize("text", ["", "[]", "hosts: []", "hosts: 5", "hosts: [5]", "a: !!python/object:os.system x"])
def test_what_is_no_inventory_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InventoryInvalid, match=r"fleet\.yaml"):
        read(tmp_path, text)


def test_a_missing_inventory_is_named(tmp_path: Path) -> None:
    with pytest.raises(InventoryInvalid, match="No such file"):
        inventory.load(tmp_path / "nowhere.yaml")
