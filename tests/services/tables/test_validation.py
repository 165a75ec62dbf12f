"""What a node says of requests that are wrong: `validation.yaml`, through boto3."""

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.services.tables import cases
from tests.services.tables.cases import Case
from tests.support import people, sdk


@pytest.fixture(scope="module")
def dynamodb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("validation")
    alice = people.make(folder, "alice")
    node = sdk.node_for_sdks(folder, alice)
    files = {f"tables/{name}.json": table for name, table in cases.TABLES.items()}
    with sdk.serving(folder, node, files) as project, pytest.MonkeyPatch.context() as patch:
        unchecked = sdk.ONCE.merge(Config(parameter_validation=False))
        yield sdk.session(folder, project, alice, patch).client(
            "dynamodb", endpoint_url=sdk.endpoint(node), config=unchecked
        )


@pytest.mark.parametrize("case", list(cases.validation()), ids=str)
def test_what_is_wrong_is_said_as_dynamodb_says_it(dynamodb: Any, case: Case) -> None:
    with pytest.raises(ClientError) as caught:
        dynamodb._make_api_call(case.operation, case.ask)
    error = caught.value.response["Error"]
    assert (error["Code"], error["Message"]) == (case.code, case.says)
    if case.reasons:
        told = caught.value.response["CancellationReasons"]
        assert [reason.get("Message") for reason in told] == case.reasons


def test_every_case_has_a_name_of_its_own_and_a_source() -> None:
    found = list(cases.validation())
    assert len({str(case) for case in found}) == len(found)
    assert {case.source.split()[0] for case in found} <= cases.sources().keys()
