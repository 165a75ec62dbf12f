"""The front door by itself, with small APIs behind it: boto3 over HTTP and HTTPS, and uploads that were tampered with."""

import base64
import hashlib
import http.client
import io
import os
import socket
import ssl
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import pytest
from botocore import model
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError, SSLError

from owsgit.aws import sigv4
from owsgit.aws.payload import SIGNED
from owsgit.aws.sigv4 import Request
from owsgit.node.own_certificate import OwnCertificate
from tests.support.authorities import Authority
from tests.support.doors import AT, KEY, SECRET, TOKEN, Buckets, Metrics, Running, running
from tests.support.nodes import until
from tests.support.sdk import refused

DATA = bytes(range(256)) * 12_000
SMALL = b"hello"


class Shop:
    """A door with and one without TLS, before the same APIs."""

    def __init__(self, plain: Running, secure: Running, buckets: Buckets, metrics: Metrics, folder: Path) -> None:
        self.plain, self.secure, self.buckets, self.metrics, self.folder = plain, secure, buckets, metrics, folder
        self._session = boto3.session.Session()  # which reads its models once

    def client(self, service: str, door: Running | None = None, **options: Any) -> Any:
        config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, signature_version="v4")
        given = {"config": config, **options}
        return self._session.client(
            service, endpoint_url=(door or self.secure).url, region_name="us-east-1", aws_access_key_id=KEY,
            aws_secret_access_key=SECRET, aws_session_token=TOKEN, verify=str(self.folder / "ca.pem"), **given,
        )  # fmt: skip


def renew(folder: Path, authority: Authority, *names: str) -> None:
    chain, mark, key = authority.issue(*names).partition(b"-----BEGIN PRIVATE KEY-----")
    for name, content in (("chain.pem", chain), ("key.pem", mark + key)):
        scratch = folder / f".{name}"
        scratch.write_bytes(content)
        scratch.replace(folder / name)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("door")
    authority = Authority()
    (folder / "ca.pem").write_text(authority.pem)
    renew(folder, authority, "localhost")
    buckets, metrics = Buckets(), Metrics()
    certificate = OwnCertificate(str(folder / "chain.pem"), str(folder / "key.pem"), "node.json", "$.awsTls")
    with (
        running(folder / "a", [buckets, metrics]) as plain,
        running(folder / "b", [buckets, metrics], certificate) as secure,
    ):
        yield Shop(plain, secure, buckets, metrics, folder)


@pytest.fixture(params=["http", "https"], scope="module")
def s3(request: pytest.FixtureRequest, shop: Shop) -> Any:
    return shop.client("s3", shop.plain if request.param == "http" else shop.secure)


def test_objects_go_up_and_down(s3: Any, shop: Shop) -> None:
    s3.put_object(Bucket="b", Key="a//b/ä", Body=DATA, Metadata={"Who": "bob"}, ContentEncoding="gzip")
    assert shop.buckets.objects["a//b/ä"] == DATA
    given = shop.buckets.given
    assert given["length"] == len(DATA) and given["content_encoding"] == "gzip"
    assert given["checksums"] == {
        "x-amz-checksum-crc32": base64.b64encode(zlib.crc32(DATA).to_bytes(4, "big")).decode()
    }
    answer = s3.get_object(Bucket="b", Key="a//b/ä")
    assert answer["Body"].read() == DATA and answer["ContentLength"] == len(DATA)
    assert answer["Metadata"] == {"who": "bob"}
    part = s3.get_object(Bucket="b", Key="a//b/ä", Range="bytes=1-3")
    assert part["Body"].read() == b"\x01\x02\x03" and part["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert s3.head_object(Bucket="b", Key="a//b/ä")["ContentLength"] == len(DATA)


def test_a_body_comes_in_pieces_and_never_as_a_whole(s3: Any, shop: Shop) -> None:
    shop.buckets.largest_piece = 0
    s3.upload_fileobj(io.BytesIO(DATA), "b", "file")
    assert shop.buckets.objects["file"] == DATA and 0 < shop.buckets.largest_piece < 1 << 20


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_any_checksum_of_boto3_is_taken(s3: Any, shop: Shop, algorithm: str) -> None:
    s3.put_object(Bucket="b", Key="k", Body=SMALL, ChecksumAlgorithm=algorithm)
    assert list(shop.buckets.given["checksums"]) == [f"x-amz-checksum-{algorithm.lower()}"]
    with pytest.raises(ClientError, match=r"BadDigest|InvalidRequest"):
        s3.put_object(Bucket="b", Key="k", Body=SMALL, **{f"Checksum{algorithm}": base64.b64encode(b"x" * 4).decode()})


def test_bodies_of_xml_and_what_is_not_there(s3: Any, shop: Shop) -> None:
    shop.buckets.objects |= {"x/1 <&>": b"", "x/2\r": b""}
    listed = s3.list_objects_v2(Bucket="b", Prefix="x/")
    assert [each["Key"] for each in listed["Contents"]] == ["x/1 <&>", "x/2\r"]
    gone = s3.delete_objects(Bucket="b", Delete={"Objects": [{"Key": "x/1 <&>"}, {"Key": "y"}]})
    assert gone["Deleted"] == [{"Key": "x/1 <&>"}]
    assert [each["Name"] for each in s3.list_buckets()["Buckets"]] == ["b"]
    assert s3.get_bucket_location(Bucket="b")["LocationConstraint"] == "eu-central-1"
    missing = refused(s3.get_object, Bucket="b", Key="nothing")
    assert missing.code == "NoSuchKey" and missing.status == 404
    assert refused(s3.head_object, Bucket="b", Key="nothing").status == 404
    assert refused(s3.get_object, Bucket="b", Key="forbidden").code == "AccessDenied"
    assert refused(s3.get_bucket_tagging, Bucket="b").code == "NotImplemented"
    assert s3.exceptions.NoSuchKey is not None


def test_what_nobody_reads_is_held_against_its_checksum_as_well(shop: Shop) -> None:
    client = shop.client("s3", shop.plain)
    told = {"Bucket": "b", "Key": "k", "UploadId": "u", "PartNumber": 1, "Body": SMALL}
    assert client.upload_part(**told)["ETag"] == "unread"
    assert refused(client.upload_part, **told, ChecksumCRC32="AAAAAA==").code == "BadDigest"


@pytest.mark.parametrize("style", ["s3v4", "s3v4-query"])
def test_an_address_that_was_signed_ahead_needs_no_more(shop: Shop, style: str) -> None:
    config = Config(signature_version=style, s3={"addressing_style": "path"})
    client = shop.client("s3", shop.plain, config=config)
    shop.buckets.objects["a b+c"], shop.buckets.metadata["a b+c"] = SMALL, {}
    url = client.generate_presigned_url("get_object", {"Bucket": "b", "Key": "a b+c"}, ExpiresIn=60)
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == SMALL
    put = client.generate_presigned_url("put_object", {"Bucket": "b", "Key": "put"}, ExpiresIn=60)
    with urllib.request.urlopen(urllib.request.Request(put, b"anything", method="PUT")) as answer:
        assert answer.status == 200 and shop.buckets.objects["put"] == b"anything"
    for wrong in (url.replace("a%20b", "a%20c"), url.replace("Expires=60", "Expires=61"), url + "&versionId=x"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(wrong)
        assert caught.value.code == 403 and b"SignatureDoesNotMatch" in caught.value.read()


class Upload:
    """One that signs its chunks, as SDKs of other languages do, and what an attacker makes of it."""

    def __init__(self, shop: Shop, data: bytes, **more: str) -> None:
        self.port, self.data = shop.plain.port, data
        request = AWSRequest(
            "PUT",
            f"http://localhost:{self.port}/b/chunked",
            {
                "Host": f"localhost:{self.port}",
                "X-Amz-Content-SHA256": SIGNED,
                "X-Amz-Decoded-Content-Length": str(len(data)),
                "Content-Encoding": "aws-chunked",
                **more,
            },
        )
        auth = S3SigV4Auth(Credentials(KEY, SECRET, TOKEN), "s3", "us-east-1")
        auth.payload = lambda request: SIGNED  # type: ignore[method-assign]
        auth.add_auth(request)
        self.headers = dict(request.headers.items())
        wire = [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
        signed = sigv4.read(Request("PUT", b"/b/chunked", b"", wire))
        assert signed is not None
        self.signed = signed

    def chunks(self, size: int = 65536) -> bytes:
        body, previous = b"", self.signed.signature
        for at in range(0, len(self.data) + size, size):
            piece = self.data[at : at + size]
            digest = hashlib.sha256(piece).hexdigest()
            previous = sigv4.chunk_signature(self.signed, SECRET, "PAYLOAD", previous, digest)
            body += b"%x;chunk-signature=%b\r\n%b\r\n" % (len(piece), previous.encode(), piece)
        return body

    def send(self, body: bytes, **more: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("localhost", self.port, timeout=20)
        connection.request("PUT", "/b/chunked", body, {**self.headers, **more})
        answer = connection.getresponse()
        found = answer.status, answer.read()
        connection.close()
        return found


def test_an_upload_that_signs_its_chunks_is_taken_and_a_forged_one_is_not(shop: Shop) -> None:
    data = os.urandom(200_000)
    upload = Upload(shop, data)
    body = upload.chunks()
    assert upload.send(body)[0] == 200 and shop.buckets.objects["chunked"] == data
    del shop.buckets.objects["chunked"]
    for forged, code in [
        (body.replace(data[100_000:100_004], b"evil", 1), b"SignatureDoesNotMatch"),
        (body[:-100], b"IncompleteBody"),
        (body[: body.rindex(b"0;chunk")], b"IncompleteBody"),
        (data, b"IncompleteBody"),
        (upload.chunks(4096), b"InvalidChunkSizeError"),
    ]:
        status, text = upload.send(forged)
        assert status in (400, 403) and code in text
    assert "chunked" not in shop.buckets.objects
    for change in ({"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}, {"X-Amz-Decoded-Content-Length": "5"}):
        status, text = upload.send(body, **change)
        assert status == 403 and b"SignatureDoesNotMatch" in text


@pytest.mark.parametrize("protocol", ["smithy-rpc-v2-cbor", "json", "query"])
def test_a_service_is_spoken_in_all_its_ways(shop: Shop, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "PRIORITY_ORDERED_SUPPORTED_PROTOCOLS", (protocol,))
    client = shop.client("cloudwatch", shop.plain)
    assert client.meta.service_model.resolved_protocol == protocol
    client.put_metric_data(Namespace="n", MetricData=[{"MetricName": protocol, "Timestamp": AT, "Value": 1.5}])
    assert shop.metrics.put[-1] == ("n", {"MetricName": protocol, "Timestamp": AT, "Value": 1.5})
    asked = {"Namespace": "n", "MetricName": "m", "StartTime": AT, "EndTime": AT, "Period": 60}
    assert client.get_metric_statistics(**asked)["Datapoints"] == [{"Timestamp": AT, "Sum": 1.5, "Unit": "Count"}]
    missing = refused(client.get_metric_statistics, **{**asked, "Namespace": "none"})
    assert missing.code == "ResourceNotFound" and missing.status == 404
    assert refused(client.list_metrics).code == "NotImplemented"
    wrong = refused(client.put_metric_data, Namespace=":", MetricData=[])
    assert wrong.code in ("ValidationException", "ValidationError") and "'namespace'" in wrong.message


@pytest.mark.parametrize("protocol", ["smithy-rpc-v2-cbor", "query"])
def test_what_a_client_compresses_is_read(shop: Shop, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "PRIORITY_ORDERED_SUPPORTED_PROTOCOLS", (protocol,))
    client = shop.client("cloudwatch", shop.plain)
    sent: list[Any] = []
    client.meta.events.register("before-send", lambda request, **_: sent.append(request.headers["Content-Encoding"]))
    data = [{"MetricName": f"m{index}", "Value": float(index)} for index in range(900)]
    client.put_metric_data(Namespace="large", MetricData=data)
    assert [each for _, each in shop.metrics.put[-900:]] == data
    assert sent in (["gzip"], [b"gzip"])


def test_what_is_signed_in_an_address_counts_as_a_header(shop: Shop) -> None:
    crc = base64.b64encode(zlib.crc32(SMALL).to_bytes(4, "big")).decode()

    def put(body: bytes, query: str, **headers: str) -> tuple[int, bytes]:
        request = AWSRequest("PUT", f"{shop.plain.url}/b/hoisted?{query}", headers)
        S3SigV4QueryAuth(Credentials(KEY, SECRET, TOKEN), "s3", "us-east-1", 60).add_auth(request)
        try:
            sent = urllib.request.Request(request.prepare().url, body, headers, method="PUT")
            with urllib.request.urlopen(sent) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    assert put(SMALL, f"x-amz-meta-who=bob&X-Amz-Checksum-Crc32={quote(crc)}")[0] == 200
    assert shop.buckets.metadata["hoisted"] == {"who": "bob"}
    assert shop.buckets.given["checksums"] == {"x-amz-checksum-crc32": crc}
    assert b"BadDigest" in put(b"other", f"x-amz-checksum-crc32={quote(crc)}")[1]
    status, text = put(SMALL, "x-amz-meta-who=bob", **{"x-amz-meta-who": "eve"})
    assert status == 400 and b"more than once" in text


def test_a_client_without_the_authority_is_not_answered(shop: Shop) -> None:
    client = boto3.session.Session().client(
        "s3", endpoint_url=shop.secure.url, region_name="us-east-1", aws_access_key_id=KEY, aws_secret_access_key=SECRET
    )
    with pytest.raises(SSLError):
        client.list_buckets()


def test_functions_reach_a_door_with_tls_without_it_on_this_machine(shop: Shop) -> None:
    inner = boto3.session.Session().client(
        "s3", endpoint_url=f"http://127.0.0.1:{shop.secure.inner}", region_name="us-east-1", aws_access_key_id=KEY,
        aws_secret_access_key=SECRET, aws_session_token=TOKEN,
    )  # fmt: skip
    assert inner.list_buckets()["Buckets"] and shop.secure.inner != shop.secure.port
    assert shop.plain.inner == shop.plain.port


@pytest.mark.parametrize(("listen", "warned"), [("0.0.0.0", True), ("127.0.0.1", False), ("localhost", False)])
def test_a_door_that_others_reach_in_clear_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, listen: str, warned: bool
) -> None:
    door = Running(tmp_path, [Metrics()], listen=listen)
    door.close()
    assert ("without TLS" in caplog.text) == warned
    assert door.inner


def shown(shop: Shop) -> str:
    context = ssl.create_default_context(cafile=str(shop.folder / "ca.pem"))
    context.check_hostname = False
    with context.wrap_socket(socket.create_connection(("localhost", shop.secure.port))) as connection:
        return str(connection.getpeercert(True))


def test_a_certificate_for_another_name_is_warned_of(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    files = (str(shop.folder / "chain.pem"), str(shop.folder / "key.pem"), "node.json", "$.awsTls")
    assert "localhost" in OwnCertificate(*files, "localhost").read().names and not caplog.text
    OwnCertificate(*files, "node1.example.com").read()
    assert "not for node1.example.com" in caplog.text and "$.awsTls.host" in caplog.text


def test_a_certificate_that_changes_is_shown_and_one_that_is_broken_is_not(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    before = shown(shop)
    (shop.folder / "chain.pem").write_text("nothing")
    until(lambda: "the one before is shown" in caplog.text)
    assert shown(shop) == before
    authority = Authority()
    (shop.folder / "ca.pem").write_text(authority.pem)
    renew(shop.folder, authority, "localhost")
    until(lambda: _quiet(lambda: shown(shop)) not in ("", before))
    assert shop.client("s3").list_buckets()["Buckets"]


def _quiet(call: Callable[[], str]) -> str:
    try:
        return call()
    except ssl.SSLError:
        return ""
