"""launchd: domains, and what it loads and refuses."""

from __future__ import annotations

import os
import plistlib
import pwd
from functools import partial

from ...core import records
from ...core.errors import PreflightRefused
from ...service import launchctl_codes as codes
from ...service.launchctl import fields_of
from ..assumption import ROOT, Probe, Verdict, assumed, confirmed, judged, untested
from ..bench import LABEL, Bench
from ..jobs import STAYS, TinyJob, screen_domain, told, user_domain
from .behaviours import behaviour

_UNUSED_UID = 61234
"""for a domain that cannot exist; the next free one above it"""


def _preflight(bench: Bench) -> Verdict:
    begun = len(bench.kept)
    try:
        bench.manager.preflight()
    except PreflightRefused as refused:
        text = f"launchd refuses the service's throwaway job with {codes.meaning(refused.code)}"
        cause = "a managed profile, or no session of that kind" if refused.code else "launchctl gave no code"
        seen = bench.keep("the preflight of a deploy", refused.code, 0.0, f"{refused.message}\ntry: {refused.hint}\n")
        return judged(False, f"{text} ({cause}): {refused.message}", *bench.kept[begun:-1], seen)
    return confirmed(f"loaded in {bench.manager.domain}, and removed")


def _domains(bench: Bench) -> Verdict:
    seen = {domain: bench.launchctl("print", domain) for domain in (screen_domain(), user_domain(), "system")}
    there = [domain for domain, one in seen.items() if one.code == 0]
    absent = [f"{domain} ({one.code})" for domain, one in seen.items() if one.code != 0]
    known = all(one.code in (0, codes.DOMAIN_ABSENT, codes.WRONG_DOMAIN) for one in seen.values())
    reason = f"there: {', '.join(there) or 'none'}" + (f"; absent: {', '.join(absent)}" if absent else "")
    return judged(known and "system" in there and bool(there), reason, *seen.values())


def _automatic(bench: Bench) -> Verdict:
    job = TinyJob.of(bench, "automatic", script=STAYS)
    loaded = job.bootstrap()
    if loaded.code != 0:
        return judged(False, f"in {job.domain}: {told(loaded)}: {loaded.output.strip()}", *job.evidence)
    pid = job.runs()
    job.remove()
    return confirmed(f"in {job.domain}, as pid {pid}", *job.evidence)


def _print_fields(bench: Bench) -> Verdict:
    job = TinyJob.of(bench, "fields", script=STAYS)
    pid = job.start()
    seen = job.printed()
    fields = fields_of(seen.output)
    job.remove()
    wanted = {"state": "running", "pid": str(pid), "runs": "1", "path": str(job.plist.resolve()), "program": "/bin/sh"}
    real = {key: os.path.realpath(value) if key == "path" else value for key, value in fields.items()}
    wrong = [f"{key} is {real.get(key)!r}" for key, value in wanted.items() if real.get(key) != value]
    return judged(not wrong, "; ".join(wrong) or "state, pid, runs, path and program are read", seen)


def _duplicate(bench: Bench) -> Verdict:
    job = TinyJob.of(bench, "duplicate", script=STAYS)
    pid = job.start()
    again = job.call("bootstrap", job.domain, str(job.plist))
    same = job.look().pid == pid
    job.remove()
    reason = f"{told(again)}; the first process {'still runs' if same else 'is gone'}"
    return judged(again.code == codes.INPUT_OUTPUT and same, reason, *job.evidence)


def _disabled(bench: Bench) -> Verdict:
    job = TinyJob.of(bench, "disabled", script=STAYS)
    bench.cleanup.callback(bench.launchctl, "enable", job.target)
    off = job.call("disable", job.target)
    refused = job.bootstrap()
    on = job.call("enable", job.target)
    loaded = job.bootstrap()
    if loaded.code == 0 or refused.code == 0:
        job.remove()
    fine = (off.code, refused.code, on.code, loaded.code) == (0, codes.DISABLED, 0, 0)
    return judged(fine, told(off, refused, on, loaded), *job.evidence)


def _per_domain(bench: Bench) -> Verdict:
    job = TinyJob.of(bench, "per-domain", domain=user_domain(), script=":")
    bench.cleanup.callback(bench.launchctl, "enable", job.target)
    off = job.call("disable", job.target)
    said = {domain: job.call("print-disabled", domain) for domain in (user_domain(), screen_domain())}
    job.call("enable", job.target)
    if off.code != 0 or any(one.code != 0 for one in said.values()):
        return untested(f"{told(off, *said.values())}: both domains are needed", *job.evidence)
    has = {domain: is_off(one.output, job.label) for domain, one in said.items()}
    reason = "; ".join(
        f"{domain} {'has' if there else 'has not'} the record of user/UID" for domain, there in has.items()
    )
    reason += "; whether it outlives a boot is reboot.disabled-stays"
    return judged(has[user_domain()] and not has[screen_domain()], reason, *job.evidence)


def is_off(printed: str, label: str) -> bool:
    """Whether `print-disabled` lists a label as disabled; older macOS says true."""
    lines = (line.strip() for line in printed.splitlines())
    return any(line.startswith(f'"{label}"') and line.endswith(("disabled", "true")) for line in lines)


def _unknown_label(bench: Bench) -> Verdict:
    target = f"{bench.manager.domain}/{LABEL}.unknown"
    shown, ended, sent = (
        bench.launchctl(*words) for words in (("print", target), ("bootout", target), ("kill", "SIGTERM", target))
    )
    fine = shown.code == codes.UNKNOWN_SERVICE and ended.code in (codes.NO_SUCH_PROCESS, codes.UNKNOWN_SERVICE)
    return judged(fine, told(shown, ended, sent), shown, ended, sent)


def _copy(bench: Bench) -> Verdict:
    job = TinyJob.of(bench, "copy", script=f"echo first; {STAYS}")
    pid = job.start()
    job.says("first")
    content = plistlib.loads(job.plist.read_bytes()) | {"ProgramArguments": ["/bin/sh", "-c", f"echo second; {STAYS}"]}
    records.write_bytes(job.plist, plistlib.dumps(content), mode=0o644)
    job.call("kickstart", "-k", job.target)
    job.until(lambda state: state.running and state.pid != pid, "it does not start again")
    job.awaited(lambda: job.said.count("first") == 2 or "second" in job.said, "it says nothing")
    said = job.said
    job.remove()
    return judged(
        "second" not in said, f"after a change of the file and a restart it says {said.split()}", *job.evidence
    )


def _open_to_others(bench: Bench) -> Verdict:
    job = TinyJob.of(bench, "open", script=STAYS)
    job.plist.chmod(0o666)
    seen = job.bootstrap()
    if seen.code == 0:
        job.remove()
    return judged(seen.code == codes.BAD_OWNERSHIP, f"{told(seen)}: {seen.output.strip()}", *job.evidence)


def _absent_domain(bench: Bench) -> Verdict:
    uid = next(number for number in range(_UNUSED_UID, _UNUSED_UID + 1000) if not _exists(number))
    job = TinyJob.of(bench, "nowhere", domain=f"gui/{uid}", script=":")
    loaded, shown = job.bootstrap(), job.call("print", job.domain)
    job.loaded = loaded.code == 0
    fine = loaded.code == codes.WRONG_DOMAIN and shown.code in (codes.DOMAIN_ABSENT, codes.WRONG_DOMAIN)
    return judged(fine, f"in {job.domain}: {told(loaded, shown)}", *job.evidence)


def _session_types(bench: Bench) -> Verdict:
    """Without the key into user/UID, with only Aqua too, and with only Background into gui/UID if it exists."""
    cases = [(user_domain(), None), (user_domain(), ["Aqua"])]
    if bench.launchctl("print", screen_domain()).code == 0:
        cases.append((screen_domain(), ["Background"]))
    if bench.privileged:
        cases.append(("system", ["Aqua"]))
    evidence, wrong = [], []
    for number, (domain, types) in enumerate(cases):
        job = TinyJob.of(bench, f"session{number}", domain=domain, script=":", LimitLoadToSessionType=types)
        seen = job.bootstrap()
        evidence += job.evidence
        if seen.code == 0:
            job.remove()
        job.loaded = False
        if seen.code != codes.WRONG_SESSION:
            wrong.append(f"{types or 'no key'} into {domain}: {codes.meaning(seen.code)}")
    suffix = "" if bench.privileged else "; system: run it with sudo"
    return judged(not wrong, ("; ".join(wrong) or f"134 in all {len(cases)} cases") + suffix, *evidence)


def _without_root(bench: Bench) -> Verdict:
    if bench.privileged:
        return untested("this run is root's: run it without sudo, too")
    job = TinyJob.of(bench, "rootless", domain="system", script=":")
    loaded = job.bootstrap()
    job.loaded = loaded.code == 0
    verbs = (("kickstart",), ("bootout",), ("kill", "SIGTERM"), ("disable",), ("enable",))
    others = [job.call(*words, job.target) for words in verbs]
    looked = job.call("print", "system")
    fine = (loaded.code, looked.code) == (codes.INPUT_OUTPUT, 0) and all(
        one.code == codes.NOT_PERMITTED for one in others
    )
    return judged(fine, told(loaded, *others, looked), *job.evidence)


def _exists(uid: int) -> bool:
    try:
        return bool(pwd.getpwuid(uid))
    except KeyError:
        return False


def _log_of_user(bench: Bench) -> Verdict:
    """A daemon of nobody with a log in the run's folder, which is closed to everybody but root."""
    job = TinyJob.of(bench, "rootlog", domain="system", script="echo here", UserName="nobody")
    job.load()
    job.until(lambda state: bool(state.last_end), "it neither ran nor failed")
    seen = job.printed()
    job.remove()
    end = fields_of(seen.output).get("last exit code", "")
    made = "made" if job.log.exists() else "not made"
    return judged(made == "not made" and end.startswith("78"), f"last exit code {end}; the log was {made}", seen)


_assumption = partial(assumed, "launchd")

PROBES = (
    Probe(
        _assumption(
            "domains",
            "`print` of gui/UID, user/UID and system answers 0 to everybody, or 112 or 125 where the domain is absent.",
            "print each of the three.",
        ),
        _domains,
    ),
    Probe(
        _assumption(
            "preflight",
            "launchd takes a job like the service's without asking anybody; no profile of a fleet forbids it.",
            "The preflight of a deploy: load a job that ends at once from a property list like the service's.",
        ),
        _preflight,
    ),
    Probe(
        _assumption(
            "automatic-domain",
            "A job for all sessions runs in the domain that `auto` chooses: gui/UID while the user is logged in at the "
            "screen, else user/UID; for root system.",
            "bootstrap a job there and wait for its process.",
        ),
        _automatic,
    ),
    Probe(
        _assumption(
            "print-fields",
            "`print` of a service has state, pid, runs, path and program in lines of their own behind one tab.",
            "Read them with the parser of a deploy and compare.",
        ),
        _print_fields,
    ),
    Probe(
        _assumption(
            "duplicate",
            "bootstrap of a label that is loaded answers 5, and the first process runs on.",
            "bootstrap the same property list twice.",
        ),
        _duplicate,
    ),
    Probe(
        _assumption(
            "disabled",
            "bootstrap of a disabled label answers 119, and 0 after `enable`.",
            "disable, bootstrap, enable, bootstrap.",
        ),
        _disabled,
    ),
    Probe(behaviour("disable-per-domain"), _per_domain),
    Probe(
        _assumption(
            "unknown-label",
            "print of an unknown label answers 113, and bootout of it 3 or 113.",
            "print, bootout and kill a label that was never loaded.",
        ),
        _unknown_label,
    ),
    Probe(
        _assumption(
            "plist-copy",
            "launchd keeps its own copy of a property list: a change of the file has no effect until a bootstrap.",
            "Load a job, rewrite its file, restart it, and read its log.",
        ),
        _copy,
    ),
    Probe(
        _assumption(
            "open-plist",
            "A property list that everybody may write is refused with 122.",
            "bootstrap one of mode 0666.",
        ),
        _open_to_others,
    ),
    Probe(behaviour("absent-domain-code"), _absent_domain),
    Probe(behaviour("session-type-refused"), _session_types),
    Probe(behaviour("not-root-codes"), _without_root),
    Probe(behaviour("log-opened-by-user", needs=f"macOS and {ROOT}"), _log_of_user),
)
