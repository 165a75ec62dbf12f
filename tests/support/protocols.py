"""botocore as the other side: its serializers write requests, its parsers read responses."""

import io
from functools import cache
from typing import Any
from urllib.parse import quote

from botocore import parsers, serialize
from botocore.awsrequest import HeadersDict
from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel, Shape

from owsgit.aws.protocols.json_rpc import JsonProtocol
from owsgit.aws.protocols.query import QueryProtocol
from owsgit.aws.protocols.rest_json import RestJsonProtocol
from owsgit.aws.protocols.rest_xml import RestXmlProtocol
from owsgit.aws.protocols.rpc_cbor import RpcCborProtocol
from owsgit.aws.protocols.wire import Incoming, Protocol, Reply

KINDS: dict[str, type[Protocol]] = {
    "json": JsonProtocol,
    "query": QueryProtocol,
    "rest-json": RestJsonProtocol,
    "rest-xml": RestXmlProtocol,
    "smithy-rpc-v2-cbor": RpcCborProtocol,
}
AMBIGUOUS = ("ListDirectoryBuckets", "GetBucketLocation")
"""The one is on the wire what ListBuckets is, at another endpoint; what the other says, botocore reads outside of its
parser."""


def unbound(service: str) -> ServiceModel:
    """The service's model without constraints, so that any value will do."""
    model = Loader().load_service_model(service, "service-2")
    for shape in model["shapes"].values():
        for name in ("pattern", "min", "max", "enum"):
            shape.pop(name, None)
    for operation in model["operations"].values():
        operation.pop("endpoint", None)  # which would put parameters into the host's name
    return ServiceModel(model, service)


SPOKEN = [
    ("sts", "query"),
    ("dynamodb", "json"),
    ("dynamodbstreams", "json"),
    ("lambda", "rest-json"),
    ("s3", "rest-xml"),
    ("cloudfront", "rest-xml"),
    ("route53", "rest-xml"),
    ("cloudwatch", "smithy-rpc-v2-cbor"),
    ("cloudwatch", "json"),
    ("cloudwatch", "query"),
]
MODELS = {service: unbound(service) for service, _ in SPOKEN}


@cache
def spoken(service: str, name: str) -> Protocol:
    return KINDS[name](MODELS[service])


def operations(protocol: Protocol) -> list[OperationModel]:
    """All that are one on the wire."""
    found = (protocol.model.operation_model(name) for name in protocol.model.operation_names)
    return [each for each in found if each.name not in AMBIGUOUS and not (each.deprecated and protocol.name == "s3")]


def written(operation: OperationModel, protocol: str, parameters: Any) -> Incoming:
    """The request that botocore makes of it."""
    made = serialize.create_serializer(protocol, include_validation=False).serialize_to_request(parameters, operation)
    path, _, query = made["url_path"].partition("?")
    pairs = [
        (name, each)
        for name, value in dict(made["query_string"]).items()
        for each in (value if isinstance(value, list) else [value])
    ]
    more = "&".join(f"{quote(name, safe='-_.~')}={quote(str(each), safe='-_.~')}" for name, each in pairs)
    body = made["body"]
    if isinstance(body, dict):
        body = "&".join(f"{quote(name, safe='')}={quote(str(each), safe='')}" for name, each in body.items())
    headers = [(name.lower().encode(), str(value).encode()) for name, value in made["headers"].items()]
    return Incoming(
        made["method"],
        path.encode(),
        "&".join(filter(None, (query, more))).encode(),
        headers,
        body.encode() if isinstance(body, str) else body,
    )


def parsed(reply: Reply, protocol: str, shape: Shape | None, *, stream: bool = False) -> dict[str, Any]:
    headers = HeadersDict({name.decode(): value.decode() for name, value in reply.headers})
    if reply.length is not None:
        headers["Content-Length"] = str(reply.length)
    given = {"status_code": reply.status, "headers": headers, "body": io.BytesIO(reply.body) if stream else reply.body}
    found: dict[str, Any] = parsers.create_parser(protocol).parse(given, shape)
    return found
