"""A rollout over two hosts in network namespaces, one of which drops all packets: prints what became of them."""

from __future__ import annotations

import sys
from pathlib import Path

from .fleets import NEW, Fleet, outcomes
from .namespaces import Namespace, enter
from .servers import Server


def main(folder: Path) -> None:
    """Needs root."""
    enter()
    fleet = Fleet.make(folder)
    places = []
    fleet.rollout["connect_timeout"] = 1
    try:
        for number in (1, 2):
            places.append(Namespace.make(number))
            name = f"mac-{number}"
            where = {"address": places[-1].address, "port": 22, "prefix": places[-1].prefix}
            server = fleet.servers[name] = Server.make(folder / name, folder / "client", **where).start()
            server.has("release-1")
            fleet.entries.append(server.entry(name))
        fleet.names(NEW)
        places[0].silence()
        report = fleet.apply()
        places[0].silence(silent=False)
        print(outcomes(report), report.failure(), report.waves[0].hosts[0].message)  # noqa: T201
        print(outcomes(fleet.apply()))  # noqa: T201
    finally:
        fleet.close()
        for place in places:
            place.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
