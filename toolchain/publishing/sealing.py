"""`build.seal`: a new release of one whose files were signed after the build, outside of the toolkit.

The manifest states each Mach-O file's digest without a signature. What differs in nothing else is what was built; any
other change is refused, as is a signature that does not fit its file, or that only some of the files have. The sealed
release is a directory of its own with a manifest of the signed files, and has to be verified. Its record has both
digests of each file.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..build import assemble, examine, macho, modes, release_dir
from ..core.errors import ReleaseInvalid
from ..core.run import Run
from ..deploy import store
from . import codesign, codesignature
from .codesign import Signed

OUTSIDE = "outside"


def seal(run: Run, folder: Path) -> Signed:
    """Make a release of a directory whose files were signed since it was built; it stays as it is.

    A release that nobody signed stays the release. Raises `ReleaseInvalid` for any other change, `SigningFailed`,
    `DiskFull`, `LockHeld`.
    """
    built, names = examine(folder)
    if not names:
        run.console.note(f"{built.id}: nothing to seal: it is as it was built")
        return Signed(release=built.id, of=built.id, signing="none", tool="", files=(), unsigned={})
    unsigned = {name: digest for name, digest in (built.unsigned or {}).items() if name in names}

    def fill(target: Path) -> None:
        for name in built.files:
            store.copy_file(folder / name, target / name)
        modes.set_all(target, built.executable or ())

    with run.console.step(f"seal {len(names)} signed files"):
        signing = codesignature.signing(macho.files(folder, built).values())
        draft = replace(
            built, id="", files={}, executable=None, verification="", flags={**built.flags, "signing": signing}
        )
        sealed = assemble(run.workspace, draft, fill)
    if sealed.unsigned != built.unsigned or sealed.files.keys() != built.files.keys():
        raise ReleaseInvalid(f"{folder}: was changed while it was read", hint="wait until it is signed; then try again")
    result = Signed(
        release=sealed.id,
        of=built.id,
        signing=signing,
        tool=OUTSIDE,
        files=names,
        unsigned=unsigned,
        digests=codesign.digests(built, sealed, names),
    )
    codesign.keep(run, built, sealed, result)
    run.console.note(f"release: {release_dir(run.workspace, sealed)}; verify it: ./inv verify --release {sealed.id}")
    return result
