"""What Apple's own management takes: a profile that allows the background item, and declarations that run tq.

The keys are those of Apple's schemas, github.com/apple/device-management.
"""

from __future__ import annotations

import io
import json
import plistlib
import uuid
import zipfile
from typing import Any

from ...core.records import sha256_bytes
from . import scripts
from .inputs import Inputs

SERVICES = "/private/var/db/ManagedConfigurationFiles/BackgroundTaskServices/Services"
"""where macOS expands the archive of a declaration, into a folder named by its TaskType"""
_INTERVAL_S = 3600
_EPOCH = (1980, 1, 1, 0, 0, 0)


def mobileconfig(given: Inputs) -> dict[str, bytes]:
    """A profile for com.apple.servicemanagement: nobody is told of the background item, and nobody turns it off.

    By label, since the program of the item is a script, which has no team. For macOS 13 and user-approved MDM.
    """
    identifier = f"{given.label}.background"
    rule = {"RuleType": "LabelPrefix", "RuleValue": given.label, "Comment": "Ollama with TurboQuant, and its helpers"}
    payload = {
        "PayloadType": "com.apple.servicemanagement",
        "PayloadVersion": 1,
        "PayloadIdentifier": f"{identifier}.rules",
        "PayloadUUID": _uuid(given, f"{identifier}.rules"),
        "PayloadDisplayName": "Background item of Ollama with TurboQuant",
        "Rules": [rule],
    }
    profile = {
        "PayloadType": "Configuration",
        "PayloadVersion": 1,
        "PayloadIdentifier": identifier,
        "PayloadUUID": _uuid(given, identifier),
        "PayloadDisplayName": "Ollama with TurboQuant",
        "PayloadDescription": "Allows its service to run in the background.",
        "PayloadScope": "System",
        "PayloadContent": [payload],
    }
    return {"mobileconfig/background-items.mobileconfig": plistlib.dumps(profile)}


def ddm(given: Inputs) -> dict[str, bytes]:
    """Declarations for macOS 15, supervised: a daemon that runs `tq apply` every hour, in a place that macOS guards.

    The two assets are to be published under their DataURL, as ddm/assets/ has them.
    """
    task = f"{given.label}.provision"
    archive = _archive({"apply.sh": scripts.render("act", given, "DDM: apply, every hour.")})
    daemon = plistlib.dumps(
        {
            "Label": task,
            "ProgramArguments": ["/bin/sh", f"{SERVICES}/{task}/apply.sh"],
            "RunAtLoad": True,
            "StartInterval": _INTERVAL_S,
            "ProcessType": "Background",
        }
    )
    assets = {"executable": ("apply.zip", archive, "application/zip"), "launchd": ("daemon.plist", daemon, "text/xml")}
    declarations = {
        f"asset-{kind}": _asset(given, f"{task}.{kind}", name, data, media)
        for kind, (name, data, media) in assets.items()
    }
    declarations["configuration"] = _declaration(
        given, task, "com.apple.configuration.services.background-tasks",
        {
            "TaskType": task,
            "TaskDescription": "Installs and checks Ollama with TurboQuant.",
            "ExecutableAssetReference": f"{task}.executable",
            "LaunchdConfigurations": [{"FileAssetReference": f"{task}.launchd", "Context": "daemon"}],
        },
    )  # fmt: skip
    return {
        **{f"ddm/{name}.json": _json(content) for name, content in declarations.items()},
        **{f"ddm/assets/{name}": data for name, data, _ in assets.values()},
    }


def _asset(given: Inputs, identifier: str, name: str, data: bytes, media: str) -> dict[str, Any]:
    reference = {
        "DataURL": f"{given.channel_url}/adapters/{given.sequence}/{name}",
        "ContentType": media,
        "Size": len(data),
        "Hash-SHA-256": sha256_bytes(data),
    }
    return _declaration(given, identifier, "com.apple.asset.data", {"Reference": reference})


def _declaration(given: Inputs, identifier: str, kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    """The server token changes with the content, and with nothing else."""
    token = _uuid(given, f"{identifier} {_json(payload).decode()}")
    return {"Type": kind, "Identifier": identifier, "ServerToken": token, "Payload": payload}


def _uuid(given: Inputs, name: str) -> str:
    """The same for the same publication and name, so that a profile replaces its earlier version."""
    return str(uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_URL, given.channel_url), name)).upper()


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _archive(members: dict[str, bytes]) -> bytes:
    """A zip with the same bytes for the same members: stored, since what compresses differs between versions."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(members.items()):
            member = zipfile.ZipInfo(name, _EPOCH)
            member.create_system = 3  # Unix: the mode counts
            member.external_attr = (0o100755) << 16
            archive.writestr(member, data)
    return made.getvalue()
