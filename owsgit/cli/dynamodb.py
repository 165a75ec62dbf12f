"""DynamoDB's API as the command line calls it: of a node, or of what a profile of the AWS CLI names, AWS itself too.

Items go through as they are on the wire, and what may pass is tried again. botocore's clients would make objects of
each attribute, and text again of those: three times the work for the same bytes.
"""

import random
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import orjson
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import BotoCoreError, SSLError
from botocore.httpsession import URLLib3Session
from botocore.session import Session

from owsgit.cli import configure
from owsgit.cli import remote as remotes
from owsgit.ledger.repository import Clone, run
from owsgit.model.errors import InvalidError, OwsgitError, UnavailableError

TARGET = "DynamoDB_20120810"
ATTEMPTS_MAX = 10
"""With the pauses between them, somewhat more than a node's restart takes."""
PAUSE_SECONDS, PAUSE_SECONDS_MAX = 0.1, 10.0
TIMEOUT_SECONDS = (5, 60)
"""To connect, and for an answer."""
CONNECTIONS_MAX = 64

PASSING = frozenset(
    {
        "InternalServerError",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "ThrottlingException",
    }
)
"""Errors that are gone a while later.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html
"""


class ApiError(OwsgitError):
    """What an operation is refused with."""

    def __init__(self, code: str, message: str, remedy: str = "") -> None:
        super().__init__(f"{code}: {message}", remedy=remedy)
        self.code, self.message = code, message


class DynamoDb:
    """An endpoint, and somebody's credentials for it. For any number of threads."""

    def __init__(
        self, endpoint: str, region: str, held: Any, *, authorities: str | None = None, bundle: str | None = None
    ) -> None:
        """`held`: botocore's credentials, which may renew themselves. `authorities`: PEM of who signs certificates, or
        a `bundle`, the file that has it."""
        self.endpoint = endpoint
        self._auth, self._held = (region, "dynamodb"), held
        self._bundle = _bundle(authorities)  # as long as it may be read
        verify = self._bundle.name if self._bundle is not None else bundle or True
        self._http = URLLib3Session(verify=verify, timeout=TIMEOUT_SECONDS, max_pool_connections=CONNECTIONS_MAX)

    def call(self, operation: str, parameters: Mapping[str, Any], *, attempts: int = ATTEMPTS_MAX) -> dict[str, Any]:
        """The operation's output. What passes is tried again, so the operation has to be one that may be repeated.

        Raises ApiError, UnavailableError.
        """
        body = orjson.dumps(parameters)
        for attempt in range(1, attempts + 1):
            try:
                return self._answer(operation, body)
            except (ApiError, UnavailableError) as error:
                if attempt == attempts or not (isinstance(error, UnavailableError) or error.code in PASSING):
                    raise
            pause(attempt)
        raise AssertionError("unreachable")

    def _answer(self, operation: str, body: bytes) -> dict[str, Any]:
        headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": f"{TARGET}.{operation}"}
        request = AWSRequest("POST", self.endpoint + "/", headers, body)
        try:
            region, service = self._auth[0], self._auth[1]
            SigV4Auth(self._held.get_frozen_credentials(), service, region).add_auth(request)
            response = self._http.send(request.prepare())
            content = response.content
        except SSLError as error:
            raise UnavailableError(
                str(error),
                remedy="the certificate has to be of an authority that is known: what nodes/NAME.json says (git pull), "
                "or of a profile its ca_bundle, before which AWS_CA_BUNDLE goes",
            ) from None
        except BotoCoreError as error:
            raise UnavailableError(
                f"{self.endpoint} does not answer: {error}",
                remedy="does the node run, and answer SDKs (ports.aws)? --node NAME asks another; then run this again",
            ) from None
        return _output(response.status_code, content)


def _output(status: int, content: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(content)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise UnavailableError(f"the answer, of status {status}, is not DynamoDB's: {content[:100]!r}")
    if status == 200:
        return answer
    code = str(answer.get("__type", f"status {status}")).rpartition("#")[2]
    message = str(answer.get("message", answer.get("Message", "")))
    if status >= 500:
        raise UnavailableError(f"{code}: {message}", remedy="try again; the node's log says more")
    raise ApiError(code, message)


def pause(attempt: int) -> None:
    """Wait before an attempt after the one of this number, not all at the same moment."""
    time.sleep(min(PAUSE_SECONDS_MAX, PAUSE_SECONDS * 2**attempt) * (0.5 + random.random() / 2))  # noqa: S311


def of_node(clone: Clone, wanted: str | None, role: str | None) -> DynamoDb:
    """A node of the clone's project, by its name in the ledger; by default the one of the clone's remote."""
    state = configure.state_of(clone)
    _, spec = configure.node_of(clone, state, wanted)
    names = run(clone.folder, "remote").split()
    remote = wanted if wanted in names else ""

    def fetch() -> dict[str, str]:
        given = orjson.loads(remotes.find(clone, remote or "").call("credentials", *remotes.role_words(role)))
        return {
            "access_key": given["AccessKeyId"],
            "secret_key": given["SecretAccessKey"],
            "token": given["SessionToken"],
            "expiry_time": given["Expiration"],
        }

    held = RefreshableCredentials.create_from_metadata(fetch(), fetch, "owsgit")
    authorities = spec.aws_tls.authorities if spec.aws_tls is not None else None
    return DynamoDb(configure.endpoint(spec), state.scope.region, held, authorities=authorities)


def _bundle(authorities: str | None) -> Any:
    """Certificates in a file, as botocore reads them; None for those that the machine trusts."""
    if authorities is None:
        return None
    file = tempfile.NamedTemporaryFile("w", suffix=".pem")  # noqa: SIM115 - gone with what holds it
    file.write(authorities)
    file.flush()
    return file


def of_profile(name: str) -> DynamoDb:
    """What a profile of ~/.aws/config says: AWS, or a node. Raises InvalidError."""
    try:
        session = Session(profile=name)
        held, meta = session.get_credentials(), session.create_client("dynamodb").meta
    except BotoCoreError as error:
        raise InvalidError(f"the profile {name!r} cannot be used: {error}", remedy="see ~/.aws/config") from None
    if held is None:
        raise InvalidError(f"the profile {name!r} has no credentials", remedy="aws configure, or aws sso login")
    bundle = session.get_config_variable("ca_bundle")
    return DynamoDb(meta.endpoint_url.rstrip("/"), meta.region_name, held, bundle=bundle)


class Table:
    """A table behind an endpoint, as it was described when this began."""

    def __init__(self, api: DynamoDb, name: str) -> None:
        """Raises OwsgitError if it is not there."""
        self.api, self.name = api, name
        try:
            found = api.call("DescribeTable", {"TableName": name}, attempts=2)["Table"]
        except ApiError as error:
            if error.code != "ResourceNotFoundException":
                raise
            raise InvalidError(
                f"there is no table {name!r} at {api.endpoint}",
                remedy=f"commit tables/{name}.json and push it first: what a table is stands in the ledger",
            ) from None
        self.identity = {"table": found["TableArn"], "created": found.get("CreationDateTime")}
        self.items = int(found.get("ItemCount", 0))
        types = {each["AttributeName"]: each["AttributeType"] for each in found["AttributeDefinitions"]}
        self.keys = [(each["AttributeName"], types[each["AttributeName"]]) for each in found["KeySchema"]]
