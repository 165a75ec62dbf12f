"""Requests that one node's front door passes on to another's, and the answers: as nodes tell them to each other."""

import re

from owsgit.aws.protocols.wire import Reply
from owsgit.aws.sigv4 import Request
from owsgit.model.errors import UnavailableError
from owsgit.model.service import Told

ADDRESS_CHARACTERS_MAX = 64


def told(request: Request, body: bytes, address: str, *, secure: bool) -> Told:
    """A request as it was signed, and what this node saw of its client."""
    return Told(
        {
            "method": request.method,
            "path": request.path.decode("latin-1"),
            "query": request.query.decode("latin-1"),
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers],
            "address": address,
            "secure": secure,
        },
        body,
    )


def heard(told: Told) -> tuple[Request, str, bool]:
    """What another node passes on: the request, and what that node saw of its client."""
    fields = told.fields
    request = Request(
        str(fields["method"]),
        str(fields["path"]).encode("latin-1"),
        str(fields["query"]).encode("latin-1"),
        [(str(name).encode("latin-1"), str(value).encode("latin-1")) for name, value in fields["headers"]],
    )
    return request, str(fields["address"])[:ADDRESS_CHARACTERS_MAX], fields["secure"] is True


async def answered(reply: Reply) -> Told:
    """A response, on its way to the node that asked. Raises UnavailableError for one in pieces."""
    if not isinstance(reply.body, bytes):
        await reply.body.aclose()
        raise UnavailableError("a stream is not passed on from node to node", remedy="ask the node that has it")
    headers = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in reply.headers]
    return Told({"status": reply.status, "headers": headers, "length": reply.length}, reply.body)


def reply(answer: Told) -> Reply:
    """What another node answered. It could write into the client's connection whatever it likes, were it not for this.

    Raises UnavailableError.
    """
    match answer.fields:
        case {"status": int(status), "headers": list(pairs)} if 200 <= status <= 599:
            headers = [_header_of(pair) for pair in pairs]
            length = answer.fields.get("length")
            known = length if isinstance(length, int) and length >= 0 else None
            return Reply(status, [pair for pair in headers if pair is not None], answer.body, known)
    raise UnavailableError("the node that has this answered something else than a response", remedy="try again")


def _header_of(pair: object) -> tuple[bytes, bytes] | None:
    """A header of another node's response, if it is one of AWS's."""
    match pair:
        case [str(name), str(value)] if _HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value):
            return name.encode("latin-1"), value.encode("latin-1")
    return None


_HEADER_NAME = re.compile(
    r"accept-ranges|cache-control|content-(type|disposition|encoding|language|range)|etag|expires|last-modified|location"
    r"|smithy-protocol|x-amzn?-[a-z0-9-]{1,64}"
)
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
