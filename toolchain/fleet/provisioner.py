"""tq on a host: put there with its files, called over SSH, its JSON read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import msgspec

from ..core.deadline import Deadline
from ..core.delivery_errors import HostKeyRejected
from ..core.printable import printable
from ..core.records import UNREADABLE, record
from ..provisioning import desired
from .connection import Remote, TimedOut, Unreachable
from .inventory import Host
from .outcome import Change, Facts

DONE, CHANGED, DRIFT, ABSENT, UNHEALTHY, BUSY = 0, 10, 20, 21, 52, 6
"""exit codes of tq"""
_EVERYWHERE = ("", "0.0.0.0", "::", "[::]")  # noqa: S104  what it listens on
_SHORT_S, _BUSY_S = 60.0, 1.0

_LOOK = r"""
case $(uname -s) in Darwin) own="/Library/Application Support/turboquant" ;; *) own=/etc/turboquant ;; esac
case $1 in
  "") folder=$HOME/.turboquant/fleet; if [ "$2" = yes ]; then folder=$own; fi ;;
  /*) folder=$1 ;;
  *) folder=$HOME/$1 ;;
esac
folder=$folder$3
printf '%s\n' "$folder"
digest() { if command -v shasum >/dev/null; then shasum -a 256; else sha256sum; fi; }
shift 3
for name do
  [ -f "$folder/$name" ] && printf '%s %s\n' "$name" "$(digest <"$folder/$name" | cut -c 1-64)"
done
exit 0
"""
_PUT = r"""
set -u
umask 077
digest() { if command -v shasum >/dev/null; then shasum -a 256; else sha256sum; fi; }
mkdir -p "$1" && chmod 755 "$1" || exit 5
new=$(mktemp "$1/.$2.XXXXXXXX") || exit 5
trap 'rm -f "$new"' EXIT
cat >"$new" || exit 5
[ "$(digest <"$new" | cut -c 1-64)" = "$4" ] || { echo "cut off on the way" >&2; exit 4; }
chmod "$3" "$new" || exit 4
if [ -n "$5" ] && [ -f "$1/$2" ] && [ ! -f "$1/$2.before-$5" ]; then
  rm -f "$1/$2".before-*
  cp -p "$1/$2" "$1/.$2.before" && mv -f "$1/.$2.before" "$1/$2.before-$5" || exit 5
fi
mv -f "$new" "$1/$2"
"""
_RESTORE = r"""
[ -f "$1/desired.before-$2" ] || exit 0
cp -p "$1/desired.before-$2" "$1/.desired.back" && mv -f "$1/.desired.back" "$1/desired" && echo restored
"""
_MODES = {"tq": "755", "desired": "600", "allowed_signers": "644", "revoked_keys": "644"}


class TqFailed(Exception):
    """tq, or putting it there, failed: one word for the error, a message, and what to try."""

    def __init__(self, error: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.error, self.message, self.hint = error, message, hint


NoAnswer = HostKeyRejected | Unreachable | TimedOut | TqFailed
"""how a conversation with a host ends without an answer"""


def explained(error: NoAnswer) -> dict[str, str]:
    """One word for the error, a message, and what to try: `error`, `message`, `hint`."""
    match error:
        case HostKeyRejected():
            return {"error": "host-key", "message": error.message, "hint": error.hint}
        case TqFailed():
            return {"error": error.error, "message": error.message, "hint": error.hint}
        case Unreachable():
            return {"error": "unreachable", "message": str(error)}
    return {"error": "timeout", "message": str(error)}


class _Difference(msgspec.Struct):
    what: str = ""
    is_: str | int | float | bool | None = msgspec.field(name="is", default="")
    wanted: str | int | float | bool | None = ""


class TqAnswer(msgspec.Struct, kw_only=True):
    """What is read of the JSON of tq."""

    verb: str
    exit_code: int
    result: str = ""
    error: str = ""
    message: str = ""
    try_: str = msgspec.field(name="try", default="")
    release: str = ""
    parent: str = ""
    version: str = ""
    healthy: bool | None = None
    gpu: bool | None = None
    changes: tuple[_Difference, ...] = ()

    def facts(self) -> Facts:
        """What it says of the host."""
        return Facts(
            release=printable(self.release),
            parent=printable(self.parent),
            version=printable(self.version),
            healthy=self.healthy,
            gpu=self.gpu,
            result=printable(self.result),
            message=printable(self.message),
        )

    def differences(self) -> tuple[Change, ...]:
        """What it would change, or changed."""
        return tuple(
            Change(what=printable(one.what), is_=_shown(one.is_), wanted=_shown(one.wanted)) for one in self.changes
        )

    def failure(self) -> TqFailed:
        """It as an error."""
        error = printable(self.error, 60) or f"exit-{self.exit_code}"
        message = printable(self.message) or f"tq {self.verb} ended with {self.exit_code}"
        return TqFailed(error, message, printable(self.try_))


def _shown(value: str | float | bool | None) -> str:
    return "" if value is None else printable(str(value))


@record
class Kit:
    """What is put on every host: file name to content."""

    tq: bytes
    signers: bytes
    revoked: bytes = b""

    @property
    def digest(self) -> str:
        """Of all of it."""
        return hashlib.sha256(b"\0".join((self.tq, self.signers, self.revoked))).hexdigest()


class Provisioner:
    """tq on one host. With `look` it works in a folder of its own, so that nothing of an installation changes."""

    def __init__(
        self, host: Host, remote: Remote, kit: Kit, release: str = "", *, rollout: str = "", look: bool = False
    ) -> None:
        """`release` pins; the desired-state file that was there before `rollout` is kept on the host."""
        self._host, self._remote, self._kit, self._release, self._look = host, remote, kit, release, look
        self._rollout = rollout
        self._folder = ""

    def prepare(self) -> None:
        """Put tq and its files there, where they differ. Raises `TqFailed`, `Unreachable`, `TimedOut`."""
        look = "/look" if self._look else ""
        found = self._script(_LOOK, self._host.folder, "yes" if self._host.sudo else "no", look, *_MODES).splitlines()
        there = dict(line.split(" ", 1) for line in found if line.split(" ")[0] in _MODES)
        self._folder = next((line for line in found if line.startswith("/")), "")  # a login may print lines of its own
        if not self._folder:
            raise TqFailed("no-shell", f"no shell that answers: {printable(' '.join(found))}")
        files = {"tq": self._kit.tq, "allowed_signers": self._kit.signers}
        if self._kit.revoked:
            files["revoked_keys"] = self._kit.revoked
        files["desired"] = self._desired().encode()
        for name, content in files.items():
            digest = hashlib.sha256(content).hexdigest()
            if there.get(name) != digest:
                keep = self._rollout if name == "desired" else ""
                self._script(_PUT, self._folder, name, _MODES[name], digest, keep, given=content)

    def pin(self, release: str) -> None:
        """Let the desired state on the host name a release."""
        self._release = release
        self.prepare()

    def _desired(self) -> str:
        values = dict(self._host.desired, signers=f"{self._folder}/allowed_signers")
        if self._kit.revoked:
            values["revoked_keys"] = f"{self._folder}/revoked_keys"
        if self._release:
            values["release"] = self._release
        return "# written by fleet.apply\n" + desired.render(dict(sorted(values.items())))

    def restore_desired(self) -> bool:
        """Bring back the desired-state file that was there before this rollout's, if it was another one."""
        return "restored" in self._script(_RESTORE, self._folder, self._rollout).splitlines()

    def ask(
        self,
        verb: str,
        limit: Deadline,
        timeout_s: float,
        *,
        on_line: Callable[[str], None] | None = None,
        wait: Callable[[float], None],
    ) -> TqAnswer:
        """Run tq, and wait while another one holds its lock. Raises `TqFailed` where it gives no answer."""
        words = ("sh", f"{self._folder}/tq", verb, "--desired", f"{self._folder}/desired", "--json")
        while True:
            done = self._remote.run(words, sudo=self._host.sudo, timeout_s=timeout_s, on_line=on_line)
            answer = _parsed(done.stdout)
            if answer is None:
                said = printable((done.stderr or done.stdout).strip()[-400:])
                raise TqFailed("no-answer", f"tq {verb} ended with {done.code} and no result: {said}", _hint(said))
            if answer.exit_code != BUSY:
                return answer
            if limit.left < _BUSY_S:
                raise answer.failure()
            wait(_BUSY_S)

    def forget(self) -> None:
        """Delete the folder of a look."""
        if self._look and self._folder.endswith("/look"):
            self._script('rm -rf "$1"', self._folder)

    def speed(self, model: str, timeout_s: float) -> float:
        """Tokens per second of a generation by the service, which the service itself states. Raises `TqFailed`."""
        address = self._host.desired.get("host", "")
        address = "127.0.0.1" if address in _EVERYWHERE else address
        url = f"http://{address}:{self._host.desired.get('port', '11434')}/api/generate"
        request = {"model": model, "prompt": "Count from one to forty.", "stream": False,
                   "options": {"num_predict": 64, "temperature": 0, "seed": 1}}  # fmt: skip
        words = ("curl", "-sS", "--max-time", f"{timeout_s:.0f}", "--noproxy", "*", "--data-binary", "@-", url)
        done = self._remote.run(words, given=json.dumps(request).encode(), timeout_s=timeout_s + 5)
        try:
            said = json.loads(done.stdout)
            return float(said["eval_count"]) * 1e9 / float(said["eval_duration"])
        except (ValueError, ArithmeticError, LookupError, RecursionError, TypeError) as error:
            why = printable(done.stderr or done.stdout)
            raise TqFailed("no-speed", f"{model} did not generate: {why}", "see rollout.speed_model") from error

    def _script(self, script: str, *arguments: str, given: bytes = b"") -> str:
        done = self._remote.run(
            ("sh", "-c", script, "sh", *arguments), given=given, sudo=self._host.sudo, timeout_s=_SHORT_S
        )
        if done.code == 0:
            return done.stdout
        said = printable(done.stderr.strip()[-400:])
        error = "disk-full" if done.code == 5 and "space" in said.lower() else "files"
        if self._host.sudo and said.startswith("sudo:"):
            error = "sudo"
        raise TqFailed(error, f"its files cannot be put there: {said or f'sh ended with {done.code}'}", _hint(said))


def _hint(said: str) -> str:
    if said.startswith("sudo:"):
        return "sudo must ask this account for no password; or set `sudo: no` for an installation of its own"
    return "free some space" if "space" in said.lower() else ""


def _parsed(output: str) -> TqAnswer | None:
    """The object in the output, before which a login shell may have printed lines of its own."""
    decoder = json.JSONDecoder()
    for start in (index for index, letter in enumerate(output) if letter == "{" and output[index - 1 : index] in "\n"):
        try:
            value, _ = decoder.raw_decode(output[start:])
            return msgspec.convert(value, TqAnswer)
        except UNREADABLE:
            continue
    return None


def settled(answer: TqAnswer, needs: tuple[str, ...]) -> str:
    """Why a host is not what the rules require of it, by tq's status; empty: it is."""
    if answer.exit_code not in (DONE, DRIFT):
        return printable(answer.message) or answer.result or f"tq status ended with {answer.exit_code}"
    if answer.exit_code == DRIFT:
        drift = ", ".join(one.what for one in answer.differences())
        return f"it differs from what is desired: {drift or printable(answer.message)}"
    if "healthy" in needs and answer.healthy is not True:
        return printable(answer.message) or "it is not healthy"
    if "gpu" in needs and answer.gpu is False:  # tq sees the GPU in use only where it loads a model: at an apply
        return "the GPU is not in use"
    return ""
