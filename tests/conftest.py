import os

# Before numpy is imported: threads of its own for small matrices, on processors that other workers use, wait for each
# other far longer than they compute. Programs that a test starts inherit it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from hypothesis import settings

from tests.shared import Miniatures

# A busy machine is no failure: what takes too long is for the suite's own clock to say.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> Miniatures:
    return Miniatures(tmp_path_factory)
