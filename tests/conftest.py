import os
import sys

# Hundreds of programs that tests start are the toolkit itself, which takes as long to compile as to run.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Before numpy is imported: threads of its own for small matrices, on processors that other workers use, wait for each
# other far longer than they compute. Programs that a test starts inherit it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from hypothesis import settings

from tests.shared import Miniatures

sys.dont_write_bytecode = False

# A busy machine is no failure: what takes too long is for the suite's own clock to say.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sweeps", action="store_true", help="all parameters of the tests that are marked sampled")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """One more than processors: what deploys and serves waits for a quarter of its time."""
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--sweeps"):
        _sample(config, items)
    if "PYTEST_XDIST_WORKER" in os.environ:
        # files with slow tests first: one that is begun last keeps a worker busy while the others have ended
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


def _sample(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a test marked `sampled(N)`, N of its parameters, spread evenly from the first to the last one."""
    families: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sampled"):
            families.setdefault(item.nodeid.partition("[")[0], []).append(item)
    left_out: set[pytest.Item] = set()
    for family in families.values():
        mark = family[0].get_closest_marker("sampled")
        assert mark is not None
        count = min(int(mark.args[0]), len(family))
        kept = {round(number * (len(family) - 1) / max(count - 1, 1)) for number in range(count)}
        left_out |= {item for place, item in enumerate(family) if place not in kept}
    if left_out and len(items) > len(left_out):  # one that is named alone, as file::test[x], is always run
        config.hook.pytest_deselected(items=sorted(left_out, key=lambda item: item.nodeid))
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> Miniatures:
    return Miniatures(tmp_path_factory)
