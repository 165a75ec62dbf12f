"""boto3 is there as on Lambda, imported before a worker starts; a function's own copy of anything goes before it."""

import sys
from collections.abc import Callable
from pathlib import Path

from owsgit.runtime import sdk
from tests.runtime.conftest import Function

Make = Callable[..., Function]


def test_boto3_is_there_and_takes_region_keys_and_endpoint_from_the_environment(function: Make) -> None:
    made = function(
        """
import boto3, botocore
client = boto3.client("dynamodb")
def handler(event, context):
    other = boto3.Session().client("sqs")
    found = client._request_signer._credentials
    return [boto3.__version__ == botocore.__version__ or True, client.meta.region_name, client.meta.endpoint_url,
            found.access_key, other.meta.region_name, boto3.__file__]
""",
        AWS_ACCESS_KEY_ID="the-functions-own", AWS_SECRET_ACCESS_KEY="s", AWS_ENDPOINT_URL="http://localhost:4000",
    )  # fmt: skip
    _, region, endpoint, key, other, file = made()
    assert (region, endpoint, key, other) == ("us-east-1", "http://localhost:4000", "the-functions-own", "us-east-1")
    assert file == "/var/runtime/boto3/__init__.py"


def test_a_functions_own_copy_of_the_sdk_or_of_a_part_is_the_one_it_gets(function: Make, tmp_path: Path) -> None:
    code = "import boto3, six\ndef handler(event, context): return [boto3.__version__, six.__file__]"
    assert function(code, others={"boto3/__init__.py": "__version__ = 'own'", "six.py": ""})() == [
        "own",
        "/var/task/six.py",
    ]
    (tmp_path / "packages/boto3").mkdir(parents=True)
    (tmp_path / "packages/boto3/__init__.py").write_text("__version__ = 'installed'")
    version, _ = function(code, packages=tmp_path / "packages")()
    assert version == "installed"


def test_modules_of_the_function_go_before_those_that_were_imported_ahead(function: Make) -> None:
    known = ("secrets", "calendar", "platform", "queue", "uuid", "kernel", "array")
    names = [name for name in known if name not in sys.builtin_module_names]  # nobody's modules go before those
    made = function(
        f"import {', '.join(names)}\nimport email\ndef handler(event, context): return [{', '.join(f'{n}.OWN' for n in names)}, email.OWN]",
        others={**{f"{name}.py": "OWN = 1" for name in names}, "email/__init__.py": "OWN = 1"},
    )
    assert made() == [1] * (len(names) + 1)


def test_what_mentions_the_sdk_is_found_in_the_code_alone(tmp_path: Path) -> None:
    for name, text in (("a", "import boto3"), ("b", "from botocore import x"), ("c", "import robotboto3s")):
        (tmp_path / name / "below").mkdir(parents=True)
        (tmp_path / name / "below/app.py").write_text(text)
    assert [sdk.is_used(tmp_path / name) for name in "abc"] == [True, True, False]
    assert {"boto3", "botocore", "urllib3", "six", "jmespath", "dateutil", "s3transfer"} <= set(sdk.modules())
