"""A .pkg: its scripts, and what builds it on a Mac; the recipes that do so for AutoPkg; and Homebrew's formula."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import yaml

from ...core import templates
from . import munki, scripts
from .inputs import Inputs

IDENTIFIER = "io.turboquant.provision"
_RECIPE = "io.turboquant.autopkg"


def pkg(given: Inputs) -> dict[str, bytes]:
    """The scripts, with tq beside them, the distribution, and build.sh, which makes the package on a Mac."""
    given = given.pinned()
    distribution = templates.render(
        "adapters/distribution.xml.j2",
        identifier=quoteattr(IDENTIFIER),
        version=quoteattr(str(given.sequence)),
        architecture=quoteattr(given.architecture),
        oldest=quoteattr(given.min_macos) if given.min_macos else "",
    )
    build = templates.render(
        "adapters/pkg-build.sh.j2",
        identifier=shlex.quote(IDENTIFIER),
        version=shlex.quote(str(given.sequence)),
        release=given.release,
    )
    return {
        **{f"pkg/scripts/{name}": data for name, data in _scripts(given).items()},
        "pkg/distribution.xml": distribution.encode(),
        "pkg/build.sh": build.encode(),
    }


def _scripts(given: Inputs) -> dict[str, bytes]:
    return {
        "preinstall": scripts.render(
            "pkg-preinstall", given, "Package: refuses another volume, and a tq that the publisher did not sign.",
            payload=True, verifies=True,
        ),
        "postinstall": scripts.render(
            "act", given, "Package: apply. A failure fails the installation.", payload=True, volume=True
        ),
        "tq": given.tq,
        "tq.sig": given.tq_signature,
    }  # fmt: skip


def autopkg(given: Inputs) -> dict[str, bytes]:
    """A recipe that makes the package, one that imports it into Munki, and the processor that verifies what is fetched.

    The package's scripts are beside the recipes, but tq comes from the channel.
    """
    given = given.pinned()
    made = _scripts(given)
    folder = "%RECIPE_CACHE_DIR%"
    downloads = [
        {
            "Processor": "URLDownloader",
            "Arguments": {
                "url": f"%CHANNEL_URL%/{_provisioner('%TQ_SHA256%')}{suffix}",
                "filename": f"tq{suffix}",
                "download_dir": f"{folder}/scripts",
            },
        }
        for suffix in ("", ".sig")
    ]
    verifier = {
        "Processor": "TurboQuantVerifier",
        "Arguments": {
            "folder": f"{folder}/scripts", "sha256": "%TQ_SHA256%", "signers": "%SIGNERS%", "revoked": "%REVOKED%"
        },
    }  # fmt: skip
    creators = [
        {
            "Processor": "FileCreator",
            "Arguments": {
                "file_path": f"{folder}/scripts/{name}", "file_content": f"%{name.upper()}%", "file_mode": "0755"
            },
        }
        for name in ("preinstall", "postinstall")
    ]  # fmt: skip
    request = {
        "pkgname": "%NAME%-%version%", "id": IDENTIFIER, "version": "%version%", "pkgroot": f"{folder}/root",
        "scripts": "scripts", "pkgtype": "flat",
    }  # fmt: skip
    package = {
        "Description": "Downloads tq, verifies its digest and signature, and makes a package that runs it.",
        "Identifier": f"{_RECIPE}.pkg.{munki.NAME}",
        "MinimumVersion": "2.3",
        "Input": {
            "NAME": munki.NAME,
            "CHANNEL_URL": given.channel_url,
            "TQ_SHA256": given.tq_sha256,
            "SIGNERS": given.signers,
            "REVOKED": given.revoked,
            "PREINSTALL": made["preinstall"].decode(),
            "POSTINSTALL": made["postinstall"].decode(),
            "version": str(given.sequence),
        },
        "Process": [
            *downloads,
            {"Processor": "EndOfCheckPhase"},
            verifier,
            *creators,
            {"Processor": "PkgRootCreator", "Arguments": {"pkgroot": f"{folder}/root", "pkgdirs": {}}},
            {"Processor": "PkgCreator", "Arguments": {"pkg_request": request}},
        ],
    }
    item = {
        key: value for key, value in munki.pkginfo(given).items() if key not in ("installer_type", "preinstall_script")
    }
    imported = {
        "Description": "Imports that package into Munki.",
        "Identifier": f"{_RECIPE}.munki.{munki.NAME}",
        "MinimumVersion": "2.3",
        "ParentRecipe": f"{_RECIPE}.pkg.{munki.NAME}",
        "Input": {"MUNKI_REPO_SUBDIR": f"apps/{munki.NAME}", "pkginfo": item},
        "Process": [
            {
                "Processor": "MunkiImporter",
                "Arguments": {
                    "pkg_path": "%pkg_path%", "repo_subdirectory": "%MUNKI_REPO_SUBDIR%"
                },
            }
        ],
    }  # fmt: skip
    return {
        "autopkg/TurboQuant.pkg.recipe.yaml": _yaml(package),
        "autopkg/TurboQuant.munki.recipe.yaml": _yaml(imported),
        "autopkg/TurboQuantVerifier.py": templates.render(
            "adapters/TurboQuantVerifier.py.j2", namespace=given.namespace, principal=given.principal
        ).encode(),
    }


def homebrew(given: Inputs) -> dict[str, bytes]:
    """A formula for a tap, which installs tq alone: the service is tq's, so it has no service block."""
    text = templates.render(
        "adapters/turboquant-tq.rb.j2",
        url=_ruby(f"{given.channel_url}/{_provisioner(given.tq_sha256)}"),
        file=_ruby(Path(_provisioner(given.tq_sha256)).name),
        statement=_ruby(f"{given.channel_url}/channels/{given.channel}.json"),
        homepage=_ruby(given.channel_url),
        version=given.sequence,
        sha256=given.tq_sha256,
        architecture=given.architecture,
    )
    return {"homebrew/Formula/turboquant-tq.rb": text.encode()}


def _provisioner(digest: str) -> str:
    """Where a publication has the tq of a digest: it stays there when a newer one is published."""
    return f"provisioners/{digest}.sh"


def _ruby(text: str) -> str:
    """A literal of Ruby: in single quotes only these two are special."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _yaml(recipe: dict[str, Any]) -> bytes:
    """The order is kept. JSON's text is plain data, so that no value becomes a tag or an anchor."""
    return yaml.safe_dump(json.loads(json.dumps(recipe)), sort_keys=False, allow_unicode=True, width=120).encode()
