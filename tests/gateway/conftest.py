from collections.abc import Iterator

import pytest

from tests.gateway.served import Served


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    made = Served()
    yield made
    made.close()
