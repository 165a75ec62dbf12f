"""A front door by itself, in a thread: real HTTP(S), real signatures, and small APIs behind it."""

import asyncio
import hashlib
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from owsgit.aws.api import Api, Caller, Need, Pieces, ServiceError
from owsgit.model.iam.context import Context
from owsgit.model.iam.decision import Decision
from owsgit.model.names import Scope
from owsgit.model.service import Alone, Credential, Site
from owsgit.node.front_door import FrontDoor
from owsgit.node.own_certificate import OwnCertificate
from tests.support.gateways import Account

KEY, SECRET, TOKEN = "ASIA" + "A" * 16, "secret", "token"
AT = datetime(2026, 1, 31, 10, 0, 1, tzinfo=UTC)
PIECE_BYTES = 64 * 1024


class Sent(Pieces):
    """An object on its way out."""

    def __init__(self, data: bytes) -> None:
        self._data, self.closed = data, False

    async def __anext__(self) -> bytes:
        if not self._data:
            raise StopAsyncIteration
        piece, self._data = self._data[:PIECE_BYTES], self._data[PIECE_BYTES:]
        return piece

    async def aclose(self) -> None:
        self.closed = True


class Buckets:
    """What of S3 shows how it is spoken: nothing of it is kept."""

    service = "s3"
    streams = ("PutObject", "UploadPart")

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.metadata: dict[str, dict[str, str]] = {}
        self.given: dict[str, Any] = {}  # of the last upload
        self.largest_piece = 0

    def needs(self, operation: str, parameters: Mapping[str, Any]) -> list[Need]:
        return [Need(f"s3:{operation}", f"arn:aws:s3:::{parameters.get('Bucket', '')}/{parameters.get('Key', '')}")]

    def home(self, operation: str, parameters: Mapping[str, Any]) -> str | None:
        return None

    async def list_buckets(self, caller: Caller) -> Mapping[str, Any]:
        return {"Buckets": [{"Name": "b", "CreationDate": AT}], "Owner": {"ID": caller.account}}

    async def get_bucket_location(self, caller: Caller, *, bucket: str) -> Mapping[str, Any]:
        return {"LocationConstraint": "eu-central-1"}

    async def put_object(
        self, caller: Caller, *, bucket: str, key: str, body: Pieces | None = None, **more: Any
    ) -> Mapping[str, Any]:
        pieces: list[bytes] = []
        if body is not None:
            async for piece in body:
                self.largest_piece = max(self.largest_piece, len(piece))
                pieces.append(piece)
        self.given = {**more, "length": body.length if body else 0, "checksums": body.checksums if body else {}}
        self.objects[key], self.metadata[key] = b"".join(pieces), more.get("metadata") or {}
        return {"ETag": f'"{hashlib.sha256(self.objects[key]).hexdigest()[:32]}"'}

    async def get_object(self, caller: Caller, *, bucket: str, key: str, **more: Any) -> Any:
        data = self._found(key)
        told: dict[str, Any] = {}
        if "range" in more:
            first, last = map(int, more["range"].removeprefix("bytes=").split("-"))
            told = {
                "ContentRange": f"bytes {first}-{last}/{len(data)}",
                "ResponseMetadata": {"HTTPStatusCode": 206},
            }
            data = data[first : last + 1]
        return {
            "Body": Sent(data),
            "ContentLength": len(data),
            "LastModified": AT,
            "Metadata": self.metadata[key],
            **told,
        }

    async def head_object(self, caller: Caller, *, bucket: str, key: str, **more: Any) -> Mapping[str, Any]:
        return {"ContentLength": len(self._found(key)), "LastModified": AT, "Metadata": self.metadata[key]}

    async def delete_objects(self, caller: Caller, *, bucket: str, delete: Any, **more: Any) -> Mapping[str, Any]:
        gone = [each["Key"] for each in delete["Objects"] if self.objects.pop(each["Key"], None) is not None]
        return {"Deleted": [{"Key": key} for key in gone]}

    async def list_objects_v2(self, caller: Caller, *, bucket: str, prefix: str = "", **more: Any) -> Mapping[str, Any]:
        keys = sorted(key for key in self.objects if key.startswith(prefix))
        return {
            "Name": bucket, "Prefix": prefix, "KeyCount": len(keys), "MaxKeys": 1000, "IsTruncated": False,
            "Contents": [{"Key": key, "Size": len(self.objects[key]), "LastModified": AT} for key in keys],
        }  # fmt: skip

    async def upload_part(self, caller: Caller, *, bucket: str, key: str, body: Pieces, **more: Any) -> Any:
        return {"ETag": "unread"}

    def _found(self, key: str) -> bytes:
        if key not in self.objects:
            raise ServiceError("NoSuchKey", "The specified key does not exist.", status=404, fields={"Key": key})
        return self.objects[key]


class Metrics:
    """What of CloudWatch shows how it is spoken."""

    service = "cloudwatch"

    def __init__(self) -> None:
        self.put: list[Any] = []

    def needs(self, operation: str, parameters: Mapping[str, Any]) -> list[Need]:
        return []

    def home(self, operation: str, parameters: Mapping[str, Any]) -> str | None:
        return None

    async def put_metric_data(self, caller: Caller, *, namespace: str, metric_data: Any = ()) -> None:
        self.put += [(namespace, each) for each in metric_data]

    async def get_metric_statistics(self, caller: Caller, *, namespace: str, metric_name: str, **more: Any) -> Any:
        if namespace == "none":
            raise ServiceError("ResourceNotFound", "no such metric", status=404)
        return {"Label": metric_name, "Datapoints": [{"Timestamp": more["start_time"], "Sum": 1.5, "Unit": "Count"}]}


class Running:
    """The door, and where it is."""

    def __init__(
        self,
        home: Path,
        apis: list[Api],
        certificate: OwnCertificate | None = None,
        account: Account | None = None,
        listen: str = "127.0.0.1",
    ) -> None:
        """With an account, its ledger says who somebody is and what they may; else KEY may do what is not forbidden."""
        self._account = account
        self.decided: list[tuple[str, str]] = []
        site = Site(
            home=home,
            listen="127.0.0.1",
            scope=lambda: account.state.scope if account is not None else Scope("us-east-1", "1" * 12),
            read_files=lambda tree: (),
            targets={},
            settings={},
            unseal=lambda resource: None,  # type: ignore[arg-type,return-value]
            decide=self._decide,
            credential=self._credential,
            neighbours=Alone(),
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._tls = certificate is not None
        self._door = self._run(self._open(site, apis, listen, certificate))

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _open(self, site: Site, apis: list[Api], listen: str, certificate: OwnCertificate | None) -> FrontDoor:
        door = FrontDoor(site, apis, listen, 0, "node.json", certificate)
        await door.open()
        return door

    @property
    def port(self) -> int:
        return self._door.address[1]

    @property
    def inner(self) -> int:
        return self._door.inner[1]

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://localhost:{self.port}"

    def _decide(self, who: Any, action: str, arn: str, context: Context, policy: Any) -> Decision:
        self.decided.append((action, arn))
        if self._account is not None:
            return self._account.state.decide_call(who, action, arn, context, policy)
        return Decision(not arn.endswith("forbidden"), "a policy", explicit=False)

    def _credential(self, token: str) -> Credential:
        if self._account is not None:
            return self._account.desk.check(token)
        now = int(time.time())
        return Credential(KEY, SECRET, "bob", "arn:aws:iam::111111111111:user/bob", "bob", now, now + 3600)

    def close(self) -> None:
        self._run(self._door.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


@contextmanager
def running(
    home: Path, apis: list[Api], certificate: OwnCertificate | None = None, account: Account | None = None
) -> Iterator[Running]:
    door = Running(home, apis, certificate, account)
    try:
        yield door
    finally:
        door.close()
