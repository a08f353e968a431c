"""Scripts for the agents of Jamf Pro and Kandji, and the playbook for Ansible."""

from __future__ import annotations

from ...core import templates
from . import outcomes, scripts
from .inputs import Inputs


def jamf(given: Inputs) -> dict[str, bytes]:
    """The script of a policy, and that of an extension attribute."""
    return {
        "jamf/policy.sh": scripts.render("jamf-policy", given, "Jamf Pro: script of a policy."),
        "jamf/attribute.sh": scripts.render(
            "jamf-attribute", given, "Jamf Pro: script of an extension attribute.", checks=True
        ),
    }


def kandji(given: Inputs) -> dict[str, bytes]:
    """The two scripts of a custom script item."""
    return {
        "kandji/audit.sh": scripts.render(
            "check", given, "Kandji: audit. 0 is compliant, anything else starts the remediation.", checks=True,
            exits=outcomes.KANDJI_AUDIT,
        ),
        "kandji/remediation.sh": scripts.render("act", given, "Kandji: remediation. Other than 0 raises an alert."),
    }  # fmt: skip


def ansible(given: Inputs) -> dict[str, bytes]:
    """A playbook, and the scripts that it transfers."""
    return {
        "ansible/playbook.yml": templates.render(
            "adapters/playbook.yml.j2", sequence=given.sequence, channel=given.channel, release=given.release
        ).encode(),
        "ansible/tq-plan.sh": scripts.render("check", given, "Ansible: the plan, with tq's exit codes.", checks=True),
        "ansible/tq-apply.sh": scripts.render("act", given, "Ansible: apply, with tq's exit codes.", raw=True),
    }
