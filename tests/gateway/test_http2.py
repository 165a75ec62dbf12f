"""HTTP/2 on a port with TLS: real clients, and frames that no client would send."""

import asyncio
import contextlib
import random
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import hpack
import httpx
import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import ContinuationFrame, GoAwayFrame, HeadersFrame, RstStreamFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from owsgit.gateway import http2, http2_sending
from owsgit.gateway.app import Api
from owsgit.gateway.exchange import Exchange, Mount, Response
from owsgit.gateway.hosts import Binding
from owsgit.gateway.http2_bounds import Lengths
from owsgit.gateway.http2_heads import NAMES_MAX, TABLE_BYTES_MAX, VALUES_MAX, HeadEncoder
from owsgit.gateway.limits import DEFAULT, UNSENT, Limits
from owsgit.gateway.tls import Trust
from tests.gateway.test_tls import LOOPS, Secure, until
from tests.support.authorities import Authority

HEAD = [(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/")]


class Lasting:
    """The body of a response that has none, whose end takes longer than the response."""

    def __init__(self, release: asyncio.Event) -> None:
        self._release = release

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        raise StopAsyncIteration

    async def aclose(self) -> None:
        await self._release.wait()


class Doing:
    """Handlers of many kinds, and what tests know of them."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.running = 0

    async def echo(self, exchange: Exchange) -> Response:
        body = await exchange.read()
        told = (
            f"{exchange.method} {exchange.host} {exchange.path}?{exchange.query} {exchange.protocol} {exchange.scheme}"
        )
        headers = [(b"x-cookie", exchange.header(b"cookie")), (b"x-told", told.encode()), (b"connection", b"close")]
        return Response(200, headers, body)

    async def stream(self, exchange: Exchange) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(64):
                yield b"x" * 65536

        return Response(200, [], pieces())

    async def large(self, exchange: Exchange) -> Response:
        return Response(200, [(b"x-spaced", b" a\t")], b"z" * 1_000_000)

    async def huge(self, exchange: Exchange) -> Response:
        return Response(200, [], bytes(30_000_000))  # more than sockets take that nobody reads

    async def soon(self, exchange: Exchange) -> Response:
        await asyncio.sleep(random.random() / 1000)
        return Response(200, [(b"x-long", b"x" * 300)], b"soon")

    async def wait(self, exchange: Exchange) -> Response:
        self.running += 1
        try:
            await self.release.wait()
        finally:
            self.running -= 1
        return Response(200, [], b"waited")

    async def lasting(self, exchange: Exchange) -> Response:
        return Response(204, [], Lasting(self.release))

    async def unread(self, exchange: Exchange) -> Response:
        return Response(200, [], b"early")

    async def broken(self, exchange: Exchange) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"half"
            raise ValueError

        return Response(200, [], pieces(), 100)

    def serve(self, secure: Secure, limits: Limits = DEFAULT) -> None:
        routes = [
            (f"ANY /{name}", getattr(self, name))
            for name in ("stream", "large", "huge", "soon", "wait", "lasting", "unread", "broken")
        ]
        api = Api(Mount("api", "1"), [*routes, ("$default", self.echo)], limits=limits)
        guarded = secure.secured("m.test", trust=Trust(Authority("Clients").pem.encode()))
        bindings = [Binding(host, (), api) for host in ("a.test", "m.test")]
        secure.do(secure.listeners.serve("api", secure.port, bindings, [secure.secured("a.test"), guarded]))


@pytest.fixture(scope="module", params=LOOPS)
def secure(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    made = Secure(tmp_path_factory.mktemp("http2"), request.param)
    yield made
    made.close()


@pytest.fixture
def doing(secure: Secure) -> Iterator[Doing]:
    made = Doing()
    made.serve(secure)
    yield made
    secure.loop.call_soon_threadsafe(made.release.set)


class Raw:
    """A client that h2 keeps the state of, with a way around it."""

    def __init__(self, secure: Secure, room: int = 0) -> None:
        """`room`: bytes that its kernel takes before it does; without it, megabytes."""
        plain = socket.socket()
        if room:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        plain.settimeout(10)
        plain.connect(("127.0.0.1", secure.port))
        self.socket = secure.context(protocols=("h2",)).wrap_socket(plain, server_hostname="a.test")
        assert self.socket.selected_alpn_protocol() == "h2"
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(header_encoding="utf-8", validate_outbound_headers=False)
        )
        self.taken: Counter[int] = Counter()  # bytes of bodies, by stream
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def request(self, path: str = "/", *more: tuple[str, str], end: bool = True, method: str = "GET") -> int:
        id_ = self.h2.get_next_available_stream_id()
        head = [(":method", method), *HEAD[1:3], (":path", path), *more]
        self.h2.send_headers(id_, head, end_stream=end)
        self.flush()
        return id_

    def until(self, *kinds: type[h2.events.Event], id_: int | None = None) -> Any:
        """The next event of one of these kinds."""
        for event in self.events():
            if isinstance(event, kinds) and (id_ is None or getattr(event, "stream_id", None) == id_):
                return event
        return None

    def events(self) -> Iterator[h2.events.Event]:
        """Until the server closes the connection."""
        while True:
            try:
                data = self.socket.recv(65536)
            except (ssl.SSLError, ConnectionError):
                return
            if not data:
                return
            events = self.h2.receive_data(data)
            for event in events:
                if isinstance(event, h2.events.DataReceived):
                    self.taken[event.stream_id] += len(event.data)
            yield from events
            with contextlib.suppress(OSError):
                self.flush()

    def send(self, data: bytes) -> bool:
        """Whether the server still takes it."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True


@pytest.fixture
def client(secure: Secure, doing: Doing) -> Iterator[Raw]:
    made = Raw(secure)
    yield made
    made.socket.close()


@pytest.fixture
def browser(secure: Secure, doing: Doing) -> Iterator[httpx.Client]:
    with httpx.Client(http2=True, verify=secure.context(), base_url=f"https://127.0.0.1:{secure.port}") as made:
        yield made


def ask(browser: httpx.Client, method: str, path: str, **options: Any) -> httpx.Response:
    headers = {"host": "a.test", **options.pop("headers", {})}
    return browser.request(method, path, headers=headers, extensions={"sni_hostname": "a.test"}, **options)


def test_requests_and_responses(browser: httpx.Client) -> None:
    got = ask(browser, "POST", "/x%2Fy?a=b", content=b"y" * 3_000_000, headers={"cookie": "a=1; b=2"})
    assert got.http_version == "HTTP/2" and got.content == b"y" * 3_000_000
    assert got.headers["x-told"] == "POST a.test /x/y?a=b HTTP/2.0 https"
    assert got.headers["x-cookie"] == "a=1; b=2" and "connection" not in got.headers
    assert len(ask(browser, "GET", "/stream").content) == 64 * 65536
    large = ask(browser, "GET", "/large")
    assert large.content == b"z" * 1_000_000 and large.headers["x-spaced"] == "a"
    head = ask(browser, "HEAD", "/large")
    assert head.content == b"" and head.headers["content-length"] == "1000000"
    head = ask(browser, "HEAD", "/")
    assert head.content == b"" and head.headers["content-length"] == "0"
    with pytest.raises(httpx.RemoteProtocolError):
        ask(browser, "GET", "/broken")
    assert ask(browser, "GET", "/").status_code == 200


def test_a_body_that_is_too_large(secure: Secure, doing: Doing, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"y" * 11_000_000)
    told = secure.curl("a.test", "--http2", "--data-binary", f"@{large}", "-w", " %{http_version} %{http_code}")
    assert " 2 413" in told


def test_many_at_once(secure: Secure, doing: Doing) -> None:
    async def all_of_them() -> list[httpx.Response]:
        async with httpx.AsyncClient(http2=True, verify=secure.context()) as client:
            url, named = f"https://127.0.0.1:{secure.port}/", {"sni_hostname": "a.test"}
            await client.get(url, headers={"host": "a.test"}, extensions=named)  # then there is a connection to share
            asked = [client.get(f"{url}wait", headers={"host": "a.test"}, extensions=named) for _ in range(20)]
            answers = asyncio.gather(*asked)
            await asyncio.to_thread(until, lambda: doing.running == 20)
            secure.loop.call_soon_threadsafe(doing.release.set)
            return await answers

    assert [(got.status_code, got.http_version) for got in asyncio.run(all_of_them())] == [(200, "HTTP/2")] * 20


def test_a_busy_client_costs_nothing_but_its_requests(secure: Secure, doing: Doing) -> None:
    """Whose responses wait to be sent together while it asks for more."""

    async def all_of_them() -> set[str]:
        async with httpx.AsyncClient(http2=True, verify=secure.context()) as client:
            url, named = f"https://127.0.0.1:{secure.port}/soon", {"sni_hostname": "a.test"}

            async def ask(times: int) -> set[str]:
                return {
                    (await client.get(url, headers={"host": "a.test"}, extensions=named)).text for _ in range(times)
                }

            await ask(1)
            return set.union(*await asyncio.gather(*(ask(75) for _ in range(8))))

    assert asyncio.run(all_of_them()) == {"soon"}


def test_a_body_that_is_sent_line_by_line(browser: httpx.Client) -> None:
    assert len(ask(browser, "POST", "/", content=(b"a line\n" for _ in range(1000))).content) == 7000


@pytest.mark.parametrize("path", ["/lasting", "/large"])
def test_a_client_that_always_has_as_many_streams_as_it_may(secure: Secure, doing: Doing, path: str) -> None:
    """It begins another one as soon as it has the end of a response, which is before all is done here."""
    client = reader(secure, 65_535)
    client.h2.increment_flow_control_window(2**31 - 1 - 65_535)
    for _ in range(http2.STREAMS_MAX):
        client.request(path)
    ended = 0
    for event in client.events():
        assert not isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated)
        if isinstance(event, h2.events.DataReceived):
            with contextlib.suppress(h2.exceptions.StreamClosedError):
                client.h2.increment_flow_control_window(event.flow_controlled_length, event.stream_id)
        if isinstance(event, h2.events.StreamEnded):
            ended += 1
            if ended == 3 * http2.STREAMS_MAX:
                break
            client.request(path)
    client.socket.close()


def test_a_small_response_comes_between_the_pieces_of_a_large_one(secure: Secure, doing: Doing) -> None:
    client = greedy(secure)
    large, small = client.request("/huge"), 0
    for event in client.events():
        if not small and client.taken[large] > 1_000_000:
            small = client.request("/unread")
        if isinstance(event, h2.events.StreamEnded):
            assert event.stream_id == small
            break
        time.sleep(0.0003)  # slower than the server
    client.socket.close()


def test_a_client_that_says_goodbye_gets_what_it_has_asked_for(client: Raw, secure: Secure, doing: Doing) -> None:
    """As Node.js does when its session is closed (RFC 9113 6.8)."""
    waits, large = client.request("/wait"), client.request("/large")
    until(lambda: doing.running == 1)
    client.send(GoAwayFrame(0).serialize())
    for event in client.events():
        if isinstance(event, h2.events.DataReceived):
            client.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        if isinstance(event, h2.events.StreamEnded):
            assert event.stream_id == large
            break
    secure.loop.call_soon_threadsafe(doing.release.set)
    assert client.until(h2.events.StreamEnded, id_=waits) and client.taken[waits] == len("waited")
    assert client.until(h2.events.StreamReset) is None, "and then it is closed"


def test_another_host_that_asks_for_more_is_not_reached(client: Raw) -> None:
    id_ = client.h2.get_next_available_stream_id()
    client.h2.send_headers(id_, [*HEAD[:2], (":authority", "m.test"), (":path", "/")], end_stream=True)
    client.flush()
    got = client.until(h2.events.ResponseReceived, id_=id_)
    assert dict(got.headers)[":status"] == "421"
    id_ = client.request("/", ("host", "m.test"))  # an authority and a host that differ
    assert client.until(h2.events.StreamReset, h2.events.ResponseReceived, h2.events.ConnectionTerminated) is not None
    assert not isinstance(client.until(h2.events.ResponseReceived), h2.events.ResponseReceived)


def test_an_answer_before_the_request_is_whole(client: Raw) -> None:
    id_ = client.request("/unread", end=False, method="POST")
    assert dict(client.until(h2.events.ResponseReceived, id_=id_).headers)[":status"] == "200"
    assert client.until(h2.events.StreamReset, id_=id_).error_code == ErrorCodes.NO_ERROR
    id_ = client.request()
    assert client.until(h2.events.StreamEnded, id_=id_)


def test_a_client_that_waits_to_be_told_to_continue(client: Raw) -> None:
    id_ = client.request("/", ("expect", "100-continue"), end=False, method="POST")
    assert client.until(h2.events.InformationalResponseReceived, id_=id_)
    client.h2.send_data(id_, b"body", end_stream=True)
    client.flush()
    assert client.until(h2.events.DataReceived, id_=id_).data == b"body"


def test_a_body_that_nobody_reads_is_not_taken(client: Raw, doing: Doing, secure: Secure) -> None:
    id_ = client.request("/wait", end=False, method="POST")
    until(lambda: doing.running == 1)
    sent = 0
    while room := min(client.h2.local_flow_control_window(id_), 16384):
        client.h2.send_data(id_, b"z" * room)
        client.flush()
        sent += room
        assert sent < 2 * http2.STREAM_WINDOW_BYTES
        if not client.h2.local_flow_control_window(id_):
            client.h2.ping(b"12345678")
            client.flush()
            client.until(h2.events.PingAckReceived)
    assert sent == http2.STREAM_WINDOW_BYTES
    other = client.request()
    assert client.until(h2.events.StreamEnded, id_=other), "others go on"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch, secure: Secure, doing: Doing) -> Iterator[Doing]:
    """A server that soon looks at how fast its responses are read."""
    monkeypatch.setattr(http2_sending, "READER_SECONDS", 0.3)
    doing.serve(secure, Limits(bytes_per_second=1_000))
    yield doing
    until(lambda: UNSENT.free == _ROOM)


_ROOM = UNSENT.free


def reader(secure: Secure, window: int) -> Raw:
    """A client that takes no more of a response than it says."""
    made = Raw(secure)
    made.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
    made.flush()
    made.until(h2.events.SettingsAcknowledged)
    return made


@pytest.mark.parametrize("path", ["/stream", "/large"])
def test_a_slow_reader_is_not_waited_for(secure: Secure, hasty: Doing, path: str) -> None:
    client = reader(secure, 10)
    id_ = client.request(path)
    until(lambda: UNSENT.free < _ROOM)
    assert client.until(h2.events.StreamReset, id_=id_).error_code == ErrorCodes.CANCEL
    client.socket.close()


def greedy(secure: Secure) -> Raw:
    """A client that takes all of a response at once, as far as it says."""
    made = Raw(secure)
    large = 2**31 - 1
    made.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: large, SettingCodes.MAX_FRAME_SIZE: 2**24 - 1})
    made.h2.increment_flow_control_window(large - 65_535)
    made.flush()
    made.until(h2.events.SettingsAcknowledged)
    return made


def test_a_client_that_reads_nothing_of_its_connection_is_cut_off(secure: Secure, hasty: Doing) -> None:
    """What it does not read counts as memory, however long its frames may be."""
    client = greedy(secure)
    client.request("/huge")
    until(lambda: _ROOM - UNSENT.free > 15_000_000)
    until(lambda: UNSENT.free == _ROOM)
    client.socket.close()


def test_a_reader_is_waited_for_as_long_as_its_rate_says(secure: Secure, hasty: Doing) -> None:
    """Also if it shares its line among many: each has its part."""
    client = reader(secure, 200)
    ids = [client.request("/large") for _ in range(5)]
    for turn, id_ in enumerate(ids * 3):  # 200 bytes each 0.1 seconds, for all of them
        while client.taken[id_] < 200 * (1 + turn // 5):
            assert client.until(h2.events.DataReceived)
        time.sleep(0.1)
        client.h2.increment_flow_control_window(200, id_)
        client.flush()
    client.socket.close()


def test_a_client_that_reads_its_connection_slowly_is_waited_for(
    secure: Secure, doing: Doing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Responses take turns, so that one may wait for long for the others."""
    monkeypatch.setattr(http2_sending, "READER_SECONDS", 1.0)
    client = Raw(secure, room=65_536)
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
    client.h2.increment_flow_control_window(2**31 - 1 - 65_535)
    client.flush()
    for _ in range(5):
        client.request("/huge")
    ended = time.monotonic() + 4
    while time.monotonic() < ended:
        client.socket.recv(20_000)
        time.sleep(0.03)
    assert _ROOM - UNSENT.free > 4 * 30_000_000, "all five are being sent"
    client.socket.close()
    until(lambda: UNSENT.free == _ROOM)


def test_responses_that_nobody_reads_have_an_end(secure: Secure, doing: Doing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UNSENT, "free", 2_500_000)
    client = reader(secure, 10)
    ids = [client.request("/large") for _ in range(3)]
    assert client.until(h2.events.StreamReset, id_=ids[2]).error_code == ErrorCodes.CANCEL
    assert UNSENT.free < 1_000_000
    client.h2.increment_flow_control_window(1_000_000)
    client.h2.increment_flow_control_window(1_000_000, ids[0])
    client.flush()
    while client.taken[ids[0]] < 1_000_000:
        assert client.until(h2.events.DataReceived)
    client.socket.close()
    until(lambda: UNSENT.free == 2_500_000)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(
                st.sampled_from([b"a", b"b", b"content-type", b":status"]),
                st.sampled_from([b"", b"200", b"x", b"y" * 50]),
            )
            | st.tuples(st.binary(min_size=1, max_size=3), st.binary(max_size=80)),
            max_size=8,
        )
        | st.sampled_from([0, 64, 4096]),
        max_size=40,
    )
)
def test_heads_are_decoded_as_they_were_whatever_came_before(heads: list[Any]) -> None:
    """The table of the connection changes with each head, and may change its size."""
    encoder, decoder = HeadEncoder(), hpack.Decoder()
    for head in heads:
        if isinstance(head, int):
            encoder.header_table_size = head
        else:
            assert [tuple(pair) for pair in decoder.decode(encoder.encode(head), raw=True)] == head


def test_what_changes_with_each_response_stays_out_of_the_table() -> None:
    encoder, decoder = HeadEncoder(), hpack.Decoder()
    heads = [[(b":status", b"200"), (b"x-kind", b"same"), (b"x-id", b"%08d" % number)] for number in range(300)]
    sizes = []
    for head in heads:
        block = encoder.encode(head)
        assert [tuple(pair) for pair in decoder.decode(block, raw=True)] == head
        sizes.append(len(block))
    assert sizes[-1] < 20 and len(decoder.header_table.dynamic_entries) == VALUES_MAX + 1
    for number in range(2 * NAMES_MAX):
        encoder.encode([(b"x-%d" % number, b"")])
    assert len(encoder._values) <= NAMES_MAX


@pytest.mark.parametrize("path", ["/", "/wait"])
def test_rapid_reset(client: Raw, secure: Secure, doing: Doing, path: str) -> None:
    """CVE-2023-44487: requests that are cancelled at once."""
    most, sent = 0, 0
    for _ in range(40):
        data = b""
        for _ in range(50):
            id_ = client.h2.get_next_available_stream_id()
            client.h2.send_headers(id_, [*HEAD[:3], (":path", path)], end_stream=True)
            client.h2.reset_stream(id_, ErrorCodes.CANCEL)
            data += client.h2.data_to_send()
            sent += 1
        if not client.send(data):
            break
        most = max(most, doing.running)
    ended = client.until(h2.events.ConnectionTerminated)
    assert most <= http2.STREAMS_MAX
    assert ended is None or ended.error_code == ErrorCodes.ENHANCE_YOUR_CALM
    assert not client.send(b"\0" * 100) or client.socket.recv(1) == b""


@pytest.mark.parametrize(
    "frame",
    [
        struct.pack("!I", 8)[1:] + b"\x06\x00" + bytes(4) + b"12345678",  # PING
        bytes(3) + b"\x04\x00" + bytes(4),  # SETTINGS, empty
        struct.pack("!I", 5)[1:] + b"\x02\x00" + struct.pack("!I", 5) + bytes(5),  # PRIORITY
        bytes(3) + b"\x00\x00" + struct.pack("!I", 1),  # DATA, empty
        struct.pack("!I", 4)[1:] + b"\x08\x00" + bytes(4) + struct.pack("!I", 1),  # WINDOW_UPDATE by 1
    ],
    ids=["ping", "settings", "priority", "empty-data", "window"],
)
def test_floods_of_small_frames(client: Raw, frame: bytes) -> None:
    """CVE-2019-9511, 9512, 9513, 9515, 9518."""
    client.request("/wait", end=False, method="POST")
    for _ in range(20):
        if not client.send(frame * 100):
            break
        time.sleep(0)
    ended = client.until(h2.events.ConnectionTerminated)
    assert ended is None or ended.error_code == ErrorCodes.ENHANCE_YOUR_CALM
    assert client.until(h2.events.PingAckReceived) is None, "the connection is closed"


def test_of_a_flood_little_is_parsed_before_its_client_is_sent_away(
    client: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that is read at once would keep everybody waiting while it is parsed."""
    parsed = []
    receive = h2.connection.H2Connection.receive_data

    def watched(connection: h2.connection.H2Connection, data: bytes) -> list[h2.events.Event]:
        if not connection.config.client_side:
            parsed.append(len(data))
        return receive(connection, data)

    monkeypatch.setattr(h2.connection.H2Connection, "receive_data", watched)
    client.send((bytes(3) + b"\x04\x00" + bytes(4)) * 25_000)
    client.until(h2.events.ConnectionTerminated)
    assert 300 * 9 < sum(parsed) < 16 * 1024


def test_a_flood_of_continuations(client: Raw) -> None:
    """CVE-2024-27316 and its like: a head that never ends."""
    first = HeadersFrame(1, data=b"\x00\x01a\x01b")
    client.send(first.serialize())
    for _ in range(2000):
        if not client.send(ContinuationFrame(1, data=b"\x00\x01a\x01b" * 100).serialize()):
            break
    assert client.until(h2.events.ResponseReceived) is None


def test_a_head_that_is_too_large(client: Raw) -> None:
    """Each is short on the wire (HPACK's table), and large in memory."""
    many = [("x-a", "b" * 4000)] * 100
    client.request("/", *many)
    assert client.until(h2.events.ResponseReceived) is None


@pytest.mark.parametrize(
    "head",
    [
        [(":method", "GET /"), *HEAD[1:]],
        [(":method", "post"), *HEAD[1:]],
        [(":method", "CONNECT"), (":authority", "a.test")],
        [*HEAD, ("connection", "close")],
        [*HEAD, ("transfer-encoding", "chunked")],
        [*HEAD, ("x-bad", "a\r\nb: c")],
        [*HEAD, ("X-Upper", "a")],
        [*HEAD, ("x(odd)", "a")],
        [*HEAD, ("x-bad", "a\x01b")],
        [*HEAD, ("cookie", "a\x7fb")],
        [*HEAD[:3], (":path", "/?a HTTP/1.0")],
        [*HEAD, ("content-length", "5")],
        [*HEAD, ("host", "m.test")],
        [pair for pair in HEAD if pair[0] != ":authority"],
        [*HEAD[:3], (":path", "")],
        [*HEAD[:3], (":path", "*")],
        [*HEAD, (":path", "/again")],
    ],
)
def test_heads_that_are_none(client: Raw, head: list[tuple[str, str]]) -> None:
    client.h2.config.normalize_outbound_headers = False
    client.h2.send_headers(1, head, end_stream=True)
    client.flush()
    seen = client.until(h2.events.StreamReset, h2.events.ConnectionTerminated, h2.events.ResponseReceived)
    if isinstance(seen, h2.events.ResponseReceived):
        assert dict(seen.headers)[":status"] == "400"


def test_a_table_of_headers_that_is_as_large_as_the_client_likes(client: Raw) -> None:
    client.h2.update_settings({h2.settings.SettingCodes.HEADER_TABLE_SIZE: 1 << 30})
    client.flush()
    for _ in range(100):
        id_ = client.request("/unread")
        assert client.until(h2.events.StreamEnded, id_=id_)
    assert client.h2.decoder.header_table._current_size <= TABLE_BYTES_MAX


def test_a_client_that_reads_nothing_is_not_read_any_more(client: Raw) -> None:
    client.request("/unread")
    reset = struct.pack("!I", 16)[1:] + b"\x00\x00" + struct.pack("!I", 1) + bytes(16)  # DATA of a stream that ended
    client.socket.settimeout(1)
    until(lambda: not client.send(reset * 1000))


def test_more_streams_than_are_allowed(client: Raw) -> None:
    client.until(h2.events.RemoteSettingsChanged)
    client.h2.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = 1000
    client.h2.remote_settings.acknowledge()
    with contextlib.suppress(OSError):
        for _ in range(http2.STREAMS_MAX + 5):
            client.request("/wait")
    assert client.until(h2.events.ConnectionTerminated, h2.events.StreamReset) is not None


def test_garbage_and_silence_end_a_connection(secure: Secure, doing: Doing) -> None:
    garbage = Raw(secure)
    garbage.send(b"\xff" * 1000)
    assert garbage.until(h2.events.ConnectionTerminated).error_code == ErrorCodes.FRAME_SIZE_ERROR
    doing.serve(secure, Limits(head_seconds=0.1))
    silent = Raw(secure)
    assert silent.until(h2.events.ConnectionTerminated).error_code == ErrorCodes.NO_ERROR


def test_a_body_may_take_as_long_as_its_rate_says(
    secure: Secure, doing: Doing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same as over HTTP/1.1."""
    monkeypatch.setattr(http2, "FIRST_LOOK_SECONDS", 0.2)
    doing.serve(secure, Limits(body_seconds=0.2, bytes_per_second=1_000))
    client = Raw(secure)
    client.until(h2.events.RemoteSettingsChanged)  # else the windows are smaller
    quick, slow = client.request(end=False, method="POST"), client.request(end=False, method="POST")
    for id_, size in ((quick, 16_384), (slow, 1)):
        client.h2.send_data(id_, b"x" * size)
    client.flush()
    told = client.until(h2.events.ResponseReceived)
    assert told.stream_id == slow and dict(told.headers)[":status"] == "408"
    assert client.until(h2.events.StreamReset, id_=slow).error_code == ErrorCodes.NO_ERROR
    time.sleep(0.3)  # longer than bodySeconds, and not than the bytes that came allow
    client.h2.send_data(quick, b"x" * 100, end_stream=True)
    client.flush()
    assert dict(client.until(h2.events.ResponseReceived, id_=quick).headers)[":status"] == "200"
    client.socket.close()


def test_a_reset_for_a_stream_that_never_was(client: Raw) -> None:
    client.send(RstStreamFrame(99, 0).serialize())
    assert client.until(h2.events.ConnectionTerminated).error_code == ErrorCodes.PROTOCOL_ERROR


def test_a_deployment_and_a_closing_port_lose_no_stream(secure: Secure, doing: Doing) -> None:
    client = Raw(secure)
    waits = client.request("/wait")
    until(lambda: doing.running == 1)
    secure.show(secure.secured("a.test"))
    asked = client.request()
    assert client.until(h2.events.DataReceived, id_=asked).data == b"a.test", "what is deployed answers"
    closing = asyncio.run_coroutine_threadsafe(secure.listeners.release("api"), secure.loop)
    assert client.until(h2.events.ConnectionTerminated).error_code == ErrorCodes.NO_ERROR
    secure.loop.call_soon_threadsafe(doing.release.set)
    # h2 takes nothing of a connection that is being closed: the frames are read as they are
    client.h2.state_machine.state = h2.connection.ConnectionState.CLIENT_OPEN
    assert client.until(h2.events.StreamEnded, id_=waits)
    client.socket.close()
    closing.result(20)
    with pytest.raises(OSError):
        Raw(secure)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_the_lengths_of_frames_are_seen_however_they_come(size: int) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    good = b"".join(struct.pack("!I", length)[1:] + bytes(6 + length) for length in (0, 3, 16384, 1))
    for end, fits in ((good, True), (good + b"\x00\x40\x01", False)):
        data, lengths = preface + end, Lengths()
        assert all(lengths.fit(data[at : at + size]) for at in range(0, len(data), size)) is fits
