"""Munki's pkginfo: an item without a package, whose scripts ask and run tq."""

from __future__ import annotations

import plistlib
from typing import Any

from . import outcomes, scripts
from .inputs import Inputs

NAME = "turboquant"


def files(given: Inputs) -> dict[str, bytes]:
    """The pkginfo, for the repository's pkgsinfo/."""
    content = plistlib.dumps(pkginfo(given.pinned()), sort_keys=True)
    return {f"munki/{NAME}-{given.sequence}.plist": content}


def pkginfo(given: Inputs) -> dict[str, Any]:
    """The keys of the item. Its version is the channel's sequence: Munki never downgrades, a rollback has a new one.

    apply is the preinstall_script, since Munki only warns of a postinstall_script that fails, and counts the item as
    installed.
    """
    return {
        "name": NAME,
        "display_name": "Ollama with TurboQuant",
        "description": f"Ollama {given.version} as a service, release {given.release}. tq installs and checks it.",
        "category": "Developer Tools",
        "version": str(given.sequence),
        "catalogs": ["testing"],
        "installer_type": "nopkg",
        "unattended_install": True,
        "unattended_uninstall": True,
        "uninstallable": True,
        "uninstall_method": "uninstall_script",
        "supported_architectures": [given.architecture],
        **({"minimum_os_version": given.min_macos} if given.min_macos else {}),
        **script_keys(given),
        "preinstall_script": scripts.render("act", given, "Munki: install. A failure is reported as one.").decode(),
    }


def script_keys(given: Inputs) -> dict[str, str]:
    """The scripts that ask whether to install and to remove, and the one that removes."""
    looks = {
        "installcheck_script": scripts.render(
            "check", given, "Munki: 0 is install needed, anything else is installed.", checks=True,
            exits=outcomes.MUNKI_CHECK,
        ),
        "uninstallcheck_script": scripts.render("removable", given, "Munki: 0 is removal needed.", checks=True),
        "uninstall_script": scripts.render("remove", given, "Munki: remove.", checks=True),
    }  # fmt: skip
    return {name: text.decode() for name, text in looks.items()}
