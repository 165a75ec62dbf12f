"""Node.js handlers behave as on AWS Lambda; bad ones harm nothing but their own request."""

import asyncio
import json
import re
import resource
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from owsgit.model.errors import UnavailableError
from owsgit.runtime import interpreters, node_programs
from owsgit.runtime.bubblewrap import Bubblewrap
from owsgit.runtime.config import InitError
from owsgit.runtime.framed import FramedWorker
from owsgit.runtime.rlimits import RlimitGroup, Rlimits
from owsgit.runtime.runtimes import Runtimes
from owsgit.runtime.worker import NotBegunError
from tests.runtime.conftest import Function, Lab
from tests.support.processes import freeze

Make = Callable[..., Function]
OK = "exports.handler = async (event) => event;\n"
ZEROS = b"\0" * 8


@pytest.fixture
def node(lab: Lab) -> Iterator[Make]:
    """Makes functions whose workers end with the test: a Node.js process is not small."""
    made: list[Function] = []

    def make(code: str, **fields: Any) -> Function:
        made.append(lab.function(code, **{"runtime": "nodejs", "file": "app.js", **fields}))
        return made[-1]

    yield make
    for each in made:
        lab.loop.call_soon(each.pool.close)
    lab.loop.run_until_complete(asyncio.sleep(0))


def test_an_event_goes_in_and_an_answer_comes_out(node: Make) -> None:
    echo = node(OK)
    for event in (None, {}, [1, 2.5, "ü\u2028", True], {"a": {"b": None}}, "x" * 1_000_000, "€" * 1_900_000):
        assert echo(event) == event


def test_a_worker_that_was_killed_while_idle_costs_no_request(node: Make) -> None:
    made = node(OK)
    assert made("warm") == "warm"
    for number in range(5):
        (worker,) = made.pool.idle
        running = worker._running  # type: ignore[attr-defined]
        freeze(running.pid)
        running.kill()
        assert made(number) == number
    assert made("x" * 3_000_000)


def test_what_ends_before_each_of_its_requests_is_said_to(node: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = node(OK)

    async def never_begun(*arguments: object) -> None:
        raise NotBegunError

    monkeypatch.setattr(FramedWorker, "_ask", never_begun)
    (answer,) = made.run("x")
    assert answer.error == "Unhandled" and b"Runtime.ExitError" in answer.payload


def test_the_context_is_complete(node: Make) -> None:
    found = node(
        """exports.handler = async (event, context) =>
            ({...context, left: context.getRemainingTimeInMillis(), keys: Object.keys(context)})"""
    )(None, request_id="abc", client_context=b'{"client": {"app_title": "t"}, "custom": {"k": 1}}')
    assert 4000 < found.pop("left") <= 5000
    assert "/[$LATEST]" in found.pop("logStreamName")
    assert {"identity", "getRemainingTimeInMillis", "done", "succeed", "fail"} <= set(found.pop("keys"))
    assert found == {
        "functionName": "f", "functionVersion": "$LATEST", "invokedFunctionArn": "arn:aws:lambda:us-east-1:1:function:f",
        "memoryLimitInMB": "128", "awsRequestId": "abc", "logGroupName": "/aws/lambda/f",
        "clientContext": {"client": {"app_title": "t"}, "custom": {"k": 1}}, "callbackWaitsForEmptyEventLoop": True,
    }  # fmt: skip


def test_the_environment_is_lambdas_and_the_functions_own(node: Make) -> None:
    asked = node(
        "exports.handler = async () => ({...process.env, cwd: process.cwd(), argv: process.argv})", GREETING="hi"
    )
    found = asked(None, trace_id="Root=1-x")
    assert found["GREETING"] == "hi" and found["LAMBDA_TASK_ROOT"] == found["cwd"] == "/var/task"
    assert found["_HANDLER"] == "app.handler" and found["_X_AMZN_TRACE_ID"] == "Root=1-x"
    assert found["NODE_PATH"].startswith("/opt/nodejs/node") and len(found["argv"]) == 2
    assert "HOSTNAME" not in found and "SSH_AUTH_SOCK" not in found
    assert "_X_AMZN_TRACE_ID" not in asked(), "the next request has no trace"


MODULES = {
    "lib/inner.js": "exports.deep = {er: {handler: async () => 'nested'}};",
    "common.cjs": "exports.handler = async () => 'cjs';",
    "modern.mjs": "import fs from 'node:fs'; const x = await Promise.resolve('mjs');\nexport const handler = async () => x;",
    "typed/package.json": '{"type": "module"}',
    "typed/app.js": "export const handler = async () => 'esm';",
    "default.mjs": "export default {handler: async () => 'default'};",
    "node_modules/package/index.js": "exports.name = 'package';",
    "user.js": "exports.handler = async () => require('package').name + require('./lib/inner').deep.er.handler.name;",
    "typescript.ts": "",
}


@pytest.mark.parametrize(
    ("handler", "answer"),
    [
        ("app.handler", "app"), ("lib/inner.deep.er.handler", "nested"), ("common.handler", "cjs"), ("modern.handler", "mjs"),
        ("typed/app.handler", "esm"), ("default.handler", "default"), ("user.handler", "packagehandler"),
    ],
)  # fmt: skip
def test_handlers_are_found_in_every_kind_of_module(node: Make, handler: str, answer: str) -> None:
    assert node("exports.handler = async () => 'app'", handler=handler, others=MODULES)() == answer


def test_packages_are_found_in_layers_and_where_they_were_installed(node: Make, tmp_path: Path) -> None:
    major = node_programs.major_of(node_programs.find("nodejs"))
    for path in ("opt/nodejs/node_modules/layer", f"opt/nodejs/node{major}/node_modules/own", "packages/installed"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "index.js").write_text("exports.here = __dirname")
    places = {"opt": tmp_path / "opt", "packages": tmp_path / "packages"}
    common = node(
        "exports.handler = async () => ['layer', 'own', 'installed'].map((name) => require(name).here)", **places
    )
    assert common() == [
        "/opt/nodejs/node_modules/layer", f"/opt/nodejs/node{major}/node_modules/own", "/var/node_modules/installed",
    ]  # fmt: skip
    module = "import installed from 'installed';\nexport const handler = async () => installed.here;"
    assert node(module, file="app.mjs", **places)() == "/var/node_modules/installed"
    path = node("exports.handler = async () => require('module').globalPaths[0]", NODE_PATH="/var/task/vendored")
    assert path() == "/var/task/vendored"


@pytest.mark.parametrize(
    ("handler", "answer"),
    [
        ("(event, context, callback) => callback(null, 'called')", "called"),
        ("(event, context, callback) => { setTimeout(() => callback(null, 'later'), 5); return {ignored: 1} }", "later"),
        ("(event, context, callback) => { context.callbackWaitsForEmptyEventLoop = false; setInterval(() => {}, 1000); callback(null, 1) }", 1),
        ("(event, context, callback) => { const a = []; setTimeout(() => a.push('worked'), 20); callback(null, a) }", ["worked"]),
        ("(event, context, callback) => { callback(null, 1); callback(null, 2) }", 1),
        ("(event, context, callback) => {}", None),
        ("(event, context) => context.succeed('s')", "s"),
        ("(event, context) => { setTimeout(() => context.done(null, 'd'), 5) }", "d"),
        ("(event, context) => 'synchronous'", "synchronous"),
        ("(event) => new Promise((resolve) => setTimeout(resolve, 5, 'promise'))", "promise"),
        ("async () => undefined", None),
        ("async () => () => {}", None),
        ("async () => { setInterval(() => {}, 1000); return 'async does not wait' }", "async does not wait"),
        ("async () => new Date(0)", "1970-01-01T00:00:00.000Z"),
        ("async () => (await import('node:os')).EOL", "\n"),
        ("async () => require('child_process').execFileSync(process.execPath, ['-p', '6*7']).toString()", "42\n"),
        ("async () => new Promise((r) => new (require('worker_threads').Worker)('require(\"worker_threads\").parentPort.postMessage(9)', {eval: true}).on('message', r))", 9),
    ],
)  # fmt: skip
def test_every_style_of_handler_is_answered(node: Make, handler: str, answer: Any) -> None:
    made = node(f"exports.handler = {handler};")
    assert made() == answer
    assert made() == answer, "and again"


def test_a_worker_stays_warm_and_is_frozen_between_requests(node: Make) -> None:
    counter = node("let n = 0, ticks = 0; setInterval(() => ticks++, 1);\nexports.handler = async () => [++n, ticks];")
    assert counter()[0] == 1
    time.sleep(0.1)
    n, ticks = counter()
    assert n == 2 and ticks < 50


@pytest.mark.parametrize(
    ("code", "handler", "kind", "told"),
    [
        ("require('nowhere')", "app.handler", "Runtime.ImportModuleError", "Error: Cannot find module 'nowhere'\nRequire stack:\n- /var/task/app.js"),
        (OK, "other.handler", "Runtime.ImportModuleError", "Error: Cannot find module 'other'"),
        (OK, "fs.readFileSync", "Runtime.ImportModuleError", "Cannot find module 'fs'"),
        (OK, "app.other", "Runtime.HandlerNotFound", "app.other is undefined or not exported"),
        (OK, "app.handler.not.there", "Runtime.HandlerNotFound", "undefined or not exported"),
        ("exports.handler = 5", "app.handler", "Runtime.HandlerNotFound", "app.handler is not a function"),
        (OK, "../app.handler", "Runtime.MalformedHandlerName", "'../app.handler' is not a valid handler name."),
        (OK, "app", "Runtime.MalformedHandlerName", "Bad handler"),
        ("function (", "app.handler", "Runtime.UserCodeSyntaxError", "SyntaxError: "),
        ("null.x", "app.handler", "TypeError", "Cannot read properties of null"),
        ("throw 'text'", "app.handler", "string", "text"),
        ("Promise.reject(new Error('floating'));" + OK, "app.handler", "Runtime.UnhandledPromiseRejection", "Error: floating"),
        ("setImmediate(() => { throw new RangeError('late') });" + OK, "app.handler", "RangeError", "late"),
        ("process.exit(3)", "app.handler", "Runtime.ExitError", "exit status 3"),
        ("process.exit(0)", "app.handler", "Runtime.ExitError", "without providing a reason"),
        ("process.kill(process.pid, 'SIGKILL')", "app.handler", "Runtime.ExitError", "signal"),
    ],
)  # fmt: skip
def test_code_that_cannot_be_loaded_is_told_at_deployment(
    node: Make, code: str, handler: str, kind: str, told: str
) -> None:
    bad = node(code, handler=handler)
    with pytest.raises(InitError, match=re.escape(kind)) as caught:
        bad.warm()
    assert told in caught.value.report["errorMessage"]
    assert ("package.json" in caught.value.problems[0].remedy) == ("nowhere" in told)


def test_a_module_without_its_packages_or_an_end_of_its_top_level_await_is_told(node: Make) -> None:
    with pytest.raises(InitError, match="Cannot find package") as caught:
        node("import '@aws-sdk/client-sts/x';", file="app.mjs").warm()
    assert "name @aws-sdk/client-sts in a package.json" in caught.value.problems[0].remedy
    with pytest.raises(InitError, match=r"Runtime\.ExitError"):
        node("await new Promise(() => {});\nexport const handler = 1;", file="app.mjs").warm()


def test_an_init_that_hangs_is_ended(node: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("owsgit.runtime.worker.INIT_SECONDS_MAX", 0.5)
    with pytest.raises(InitError, match="Init phase timed out"):
        node("for (;;);").warm()


EACH_FD = "for (let fd = 3; fd < 100; fd++) try { %s } catch {}"


@pytest.mark.parametrize(
    ("body", "kind", "told"),
    [
        ("throw new TypeError('bad order')", "TypeError", "bad order"),
        ("throw Object.assign(new Error('m'), {name: 'Custom'})", "Custom", "m"),
        ("throw 'text'", "string", "text"),
        ("throw {code: 1}", "object", "[object Object]"),
        ("return Promise.reject(null)", "string", "handled"),
        ("return Promise.reject({toString: null})", "handled", "callback called with Error argument"),
        ("throw {get name() { throw 1 }}", "handled", "callback called with Error argument"),
        ("return callback(new RangeError('r'))", "RangeError", "r"),
        ("return context.fail(new RangeError('r'))", "RangeError", "r"),
        ("return context.fail()", "string", "handled"),
        ("throw new Error('x'.repeat(7 << 20))", "Function.ResponseSizeTooLarge", "exceeded"),
        ("return callback(null, 5n)", "Error", "Unable to stringify response body"),
        ("const a = {}; a.a = a; return Promise.resolve(a)", "Error", "Unable to stringify response body"),
        ("return Promise.resolve('x'.repeat(7 << 20))", "Function.ResponseSizeTooLarge", "exceeded maximum allowed payload size"),
        ("return exports.handler(event, context, callback)", "RangeError", "Maximum call stack size exceeded"),
        ("Promise.reject(new Error('floating')); return Promise.resolve(1)", "Runtime.UnhandledPromiseRejection", "Error: floating"),
        ("Promise.reject(); setTimeout(callback, 50)", "Runtime.UnhandledPromiseRejection", "undefined"),
        ("setTimeout(() => { throw new RangeError('thrown later') }, 1)", "RangeError", "thrown later"),
        ("new (require('events'))().emit('error', new Error('emitted'))", "Error", "emitted"),
        ("process.exit(1)", "Runtime.ExitError", "exit status 1"),
        ("process.exit(0)", "Runtime.ExitError", "without providing a reason"),
        ("process.abort()", "Runtime.ExitError", "signal: Aborted"),
        ("process.kill(process.pid, 9)", "Runtime.ExitError", "signal: Killed"),
        ("process.kill(1, 9); process.kill(process.ppid, 9); process.kill(-1, 9)", None, ""),
        (EACH_FD % "require('fs').closeSync(fd)" + "; callback()", "Runtime.ExitError", ""),
        (EACH_FD % "require('fs').writeSync(fd, 'garbage'.repeat(9))", "Runtime.ExitError", ""),
        ("setTimeout(() => {}, 60000)", "Sandbox.Timedout", "Task timed out after 1.00 seconds"),
        ("for (;;);", "Sandbox.Timedout", "Task timed out"),
        ("for (const n of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(n, () => {}); for (;;);", "Sandbox.Timedout", "Task timed out"),
        ("const a = []; for (;;) a.push(Buffer.alloc(1 << 20, 1))", "Runtime.OutOfMemory", "signal: killed"),
        ("const a = []; for (;;) a.push({a: [1, 2, {}], b: 'x' + a.length})", ("Runtime.OutOfMemory", "Runtime.ExitError"), "signal: "),
        ("for (;;) console.log('x'.repeat(1000))", "Sandbox.Timedout", "Task timed out"),
        ("for (;;) process.stdout.write('x'.repeat(1000))", "Sandbox.Timedout", "Task timed out"),
        ("require('child_process').spawn('sleep', ['60'], {detached: true, stdio: 'inherit'}); process.exit(1)", "Runtime.ExitError", "exit status 1"),
        ("JSON.stringify = () => { throw 1 }; callback(null, 1)", "Runtime.ExitError", "exit status"),
        ("process.reallyExit = process.exit = () => {}; Promise.reject(new Error('stay'))", "Runtime.UnhandledPromiseRejection", "stay"),
    ],
)  # fmt: skip
def test_a_bad_handler_harms_its_own_request_only(node: Make, body: str, kind: Any, told: str) -> None:
    made = node(
        f"exports.handler = (event, context, callback) => {{ if (!event) return callback(null, 'well');\n{body} }};",
        timeout=1.0 if kind == "Sandbox.Timedout" else 20.0,
    )
    assert made() == "well"
    (answer,) = made.run({"do": "it"})
    error = json.loads(answer.payload)
    if kind == "Runtime.OutOfMemory" and made.lab.sandbox.note:
        kind, told = ("Error", "RangeError", "Runtime.ExitError"), ""  # the kernel refuses memory, and ends nothing
    if kind is not None:
        assert answer.error == "Unhandled"
        assert error["errorType"] in (kind if isinstance(kind, tuple) else (kind,)) and told in error["errorMessage"]
    assert made() == "well", "the next request is answered"


def test_an_async_handler_whose_promise_never_settles_is_told(node: Make) -> None:
    stuck = node("exports.handler = async () => { await new Promise(() => {}) }")
    error = stuck.error()
    assert error["errorType"] == "Runtime.NodeJsExit" and "a Promise that was never settled" in error["errorMessage"]
    assert stuck.error() == error, "by the same worker"


def test_an_exception_is_reported_as_lambda_does(node: Make) -> None:
    made = node(
        "exports.handler = async () => inner();\nfunction inner() { throw Object.assign(new RangeError('r'), {code: 'C'}) }"
    )
    error = made.error()
    assert set(error) == {"errorType", "errorMessage", "trace"} and error["errorType"] == "RangeError"
    assert error["trace"][0] == "RangeError: r" and "at inner (/var/task/app.js:2:" in error["trace"][1]
    line = next(line for line in made.log() if "Invoke Error" in line)
    head, _, logged = line.partition("\tInvoke Error \t")
    assert re.fullmatch(r"[0-9T:.-]{23}Z\trequest-0\tERROR", head)
    assert json.loads(logged)["code"] == "C" and json.loads(logged)["stack"] == error["trace"]


def test_the_log_is_lambdas(node: Make) -> None:
    talker = node(
        """console.log('loading');
exports.handler = async (event) => {
    console.log('a %d %j', 1, {b: 2}); console.info({c: [3]}); console.warn('w'); console.debug('d'); console.error(new Error('e'));
    process.stdout.write('raw\\n'); process.stderr.write('wrong\\n'); console.table([[1]]);
    console.log('two\\nlines');
};"""
    )
    talker(request_id="r1")
    log = talker.log()
    when = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{12}Z\t"
    assert re.fullmatch(when + r"undefined\tINFO\tloading", log[0])
    assert (
        log[1] == "START RequestId: r1 Version: $LATEST"
        and log[-2] == "END RequestId: r1"
        and "Init Duration" in log[-1]
    )
    said = [re.sub(when, "", line) for line in log[2:-2]]
    assert said[:4] == ['r1\tINFO\ta 1 {"b":2}', "r1\tINFO\t{ c: [ 3 ] }", "r1\tWARN\tw", "r1\tDEBUG\td"]
    assert said[4].startswith("r1\tERROR\tError: e\n    at ") and said[5:7] == ["raw", "wrong"]
    assert said[-1] == "r1\tINFO\ttwo\nlines"


def test_what_was_written_before_an_exit_is_in_the_log(node: Make) -> None:
    made = node(
        "exports.handler = async () => { for (let n = 0; n < 2000; n++) process.stdout.write(`line ${n}\\n`); process.exit(1) }"
    )
    made.error()
    assert "line 1999" in made.log()


def test_source_maps_are_used_if_asked_for(node: Make) -> None:
    mapping = {"version": 3, "sources": ["original.ts"], "names": [], "mappings": "AAAA"}
    code = "throw new Error('mapped')\n//# sourceMappingURL=app.js.map"
    with pytest.raises(InitError) as caught:
        node(code, NODE_OPTIONS="--enable-source-maps", others={"app.js.map": json.dumps(mapping)}).warm()
    assert "original.ts" in str(caught.value.report["trace"])


STREAM = "exports.handler = awslambda.streamifyResponse(async (event, stream, context) => { %s });"


def streamed(made: Function, event: Any = None) -> tuple[list[bytes], Any]:
    pieces: list[bytes] = []

    async def sink(piece: bytes) -> None:
        await asyncio.sleep(0)
        pieces.append(piece)

    (answer,) = made.run(event, sink=sink)
    return pieces, answer


def test_a_response_is_streamed_in_pieces(node: Make) -> None:
    made = node(
        STREAM
        % "for (const text of ['one', 'two']) { stream.write(text); await new Promise((r) => setTimeout(r, 5)) } stream.end({n: 3});"
    )
    pieces, answer = streamed(made)
    assert pieces == [b"one", b"two", b'{"n":3}'] and answer.payload == b"" and answer.error is None
    (whole,) = made.run(None)
    assert whole.payload == b'onetwo{"n":3}', "without a sink they are put together"


def test_a_streamed_response_may_carry_http_metadata(node: Make) -> None:
    code = "const http = awslambda.HttpResponseStream.from(stream, {statusCode: 201, headers: {a: 'b'}}); if (event) http.write('body'); http.end();"
    made = node(STREAM % code)
    metadata = b'{"statusCode":201,"headers":{"a":"b"}}'
    assert b"".join(streamed(made, 1)[0]) == metadata + ZEROS + b"body"
    assert b"".join(streamed(made)[0]) == metadata + ZEROS, "also without a body"


def test_a_pipeline_into_the_response_is_slowed_down_by_who_listens(node: Make) -> None:
    made = node(
        "const {pipeline} = require('stream/promises'), {Readable} = require('stream');\n"
        + STREAM
        % "await pipeline(Readable.from((function* () { for (let n = 0; n < 300; n++) yield Buffer.alloc(65536, n) })()), stream);",
        timeout=20.0,
    )
    pieces, answer = streamed(made)
    assert answer.error is None and sum(map(len, pieces)) == 300 * 65536
    (whole,) = made.run(None)
    assert json.loads(whole.payload)["errorType"] == "Function.ResponseSizeTooLarge" and made.run(None)[0].error


@pytest.mark.parametrize(
    ("body", "kind", "told"),
    [
        ("stream.write('part'); throw new RangeError('midway')", "RangeError", "midway"),
        ("stream.write('part')", "Error", "Response stream is not finished."),
        ("stream.write('part'); stream.setContentType('text/plain')", "Runtime.InvalidStreamingOperation", "too late"),
        ("stream.write('part'); stream.destroy(new Error('cut'))", "Error", "cut"),
        ("stream.write('part'); stream.destroy()", "Error", "not finished"),
        ("stream.write('part'); process.exit(2)", "Runtime.ExitError", "exit status 2"),
        ("stream.write('part'); setTimeout(() => { throw new RangeError('late') }); await new Promise(() => {})", "RangeError", "late"),
        ("stream.write('part'); await new Promise((r) => setTimeout(r, 60000))", "Sandbox.Timedout", "Task timed out"),
    ],
)  # fmt: skip
def test_a_stream_that_fails_ends_with_the_error(node: Make, body: str, kind: str, told: str) -> None:
    made = node(
        STREAM % f"if (!event) return stream.end('well'); {body}", timeout=1.0 if kind == "Sandbox.Timedout" else 20.0
    )
    pieces, answer = streamed(made, 1)
    error = json.loads(answer.payload)
    assert pieces == [b"part"] and answer.error == "Unhandled"
    assert error["errorType"] == kind and told in error["errorMessage"]
    assert streamed(made)[0] == [b"well"]


def test_a_listener_that_goes_away_ends_nothing(node: Make) -> None:
    made = node("let n = 0;\n" + STREAM % "n++; stream.write('a'); stream.write('b'); stream.end(String(n));")

    async def gone(piece: bytes) -> None:
        raise ConnectionResetError

    assert made.run(None, sink=gone)[0].error is None
    assert b"".join(streamed(made)[0]) == b"ab2"


def test_only_async_handlers_can_stream(node: Make) -> None:
    error = node("exports.handler = awslambda.streamifyResponse((event, stream) => { stream.end() })").error()
    assert error["errorMessage"] == "Streaming does not support non-async handlers."


def test_a_flood_of_log_is_cut_and_said(node: Make) -> None:
    noisy = node(
        "exports.handler = async () => { for (let n = 0; n < 30000; n++) console.log('x'.repeat(199)); return 'done' }",
        timeout=20.0,
    )
    assert noisy() == "done"
    log = noisy.log()
    assert any("the rest is dropped" in line for line in log) and log[-1].startswith("REPORT")


def test_a_fork_bomb_is_contained(node: Make) -> None:
    bomb = node(
        """const {spawn} = require('child_process');
exports.handler = async (event) => {
    if (!event) return 'well';
    for (;;) { spawn('sh', ['-c', 'f() { f | f & }; f'], {stdio: 'ignore'}).on('error', () => {}); await new Promise(setImmediate) }
};""",
        timeout=1.5,
    )
    bomb()
    assert bomb.error("go")["errorType"] in ("Sandbox.Timedout", "Runtime.OutOfMemory", "Runtime.ExitError")
    assert bomb() == "well"


def test_answers_never_get_mixed_up(node: Make) -> None:
    echo = node(
        "exports.handler = (event, context, callback) => { setTimeout(callback, Math.random() * 2, null, event) }",
        workers=3,
    )
    events: list[Any] = [{"n": n, "pad": "x" * (n * 37 % 5000)} for n in range(200)]
    assert [json.loads(answer.payload) for answer in echo.run(*events)] == events


def test_a_worker_that_dies_between_requests_is_replaced(node: Make) -> None:
    dying = node(
        "exports.handler = async () => { require('child_process').spawn('sh', ['-c', `sleep 0.05; kill -9 ${process.pid}`]); return process.uptime() }"
    )
    dying()
    time.sleep(0.3)
    dying.lab.loop.run_until_complete(asyncio.sleep(0.05))
    dying()


@pytest.mark.parametrize(
    "expression",
    [
        "fs.readFileSync('/etc/shadow')", "fs.readdirSync('/home')", "fs.writeFileSync('/var/task/app.js', '')",
        "fs.writeFileSync('/var/runtime/node_worker.cjs', '')", "fs.writeFileSync('/new', '')", "fs.writeFileSync('/proc/sys/kernel/core_pattern', '')",
        "fs.readFileSync('/proc/1/mem')", "process.setuid(0)", "child('unshare', ['-r', 'true'])", "child('mount', ['-t', 'tmpfs', 'x', '/tmp'])",
        "process.dlopen({exports: {}}, '/proc/self/exe')",
    ],
)  # fmt: skip
def test_it_is_refused(inside: Function, expression: str) -> None:
    assert str(inside(expression)).startswith("refused: ")


@pytest.fixture(scope="module")
def inside(lab: Any) -> Function:
    code = """const fs = require('fs'), child = (program, words) => require('child_process').execFileSync(program, words, {stdio: 'pipe'}).toString();
exports.handler = async (event) => { try { return await eval(event) } catch (error) { return `refused: ${error}` } };"""
    made: Function = lab.function(code, runtime="nodejs", file="app.js", SECRET="mine")
    return made


def test_only_its_own_processes_and_environment_are_there(inside: Function) -> None:
    environments = "fs.readdirSync('/proc').filter(Number).map((pid) => { try { return fs.readFileSync(`/proc/${pid}/environ`, 'utf8') } catch { return '' } })"
    assert len(inside("fs.readdirSync('/proc').filter(Number)")) <= 3
    assert all(text == "" or "SECRET=mine" in text for text in inside(environments))


def test_there_is_no_network(inside: Function) -> None:
    connect = "new Promise((resolve, reject) => require('net').connect(22, '%s').on('connect', () => resolve('connected')).on('error', reject))"
    for address in ("127.0.0.1", "192.0.2.1"):
        assert inside(connect % address).startswith("refused: ")


def test_without_control_groups_little_memory_is_enough_and_a_limit(
    node: Make, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = RlimitGroup.resource_limits
    memory_only = lambda self: [each for each in limits(self) if each[0] == resource.RLIMIT_DATA]  # noqa: E731
    monkeypatch.setattr(RlimitGroup, "resource_limits", memory_only)  # that of processes counts all of this user's
    sandbox = Bubblewrap(f"owsgit-test-{uuid.uuid4().hex[:8]}")
    sandbox._groups.remove()
    sandbox._groups = Rlimits()
    monkeypatch.setattr(lab, "runtimes", Runtimes(sandbox))
    small = node(
        "exports.handler = async (mib) => { const a = []; while (a.length < mib) a.push(Buffer.alloc(1 << 20, 1)); return mib }"
    )
    try:
        assert small(20) == 20
        (answer,) = small.run(2000)
        assert json.loads(answer.payload)["errorType"] in ("Error", "RangeError", "Runtime.ExitError")
        assert small(20) == 20
    finally:
        lab.loop.call_soon(small.pool.close)
        lab.loop.run_until_complete(sandbox.close())


def fake(folder: Path, name: str, version: str) -> Path:
    program = folder / name
    program.write_text(f"#!/bin/sh\necho {version}\n")
    program.chmod(0o755)
    return program


def test_the_program_of_a_version_is_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    fake(tmp_path, "node", "v16.20.0"), fake(tmp_path, "nodejs", "nonsense")
    twenty, new = fake(tmp_path, "node20", "v20.1.0"), fake(tmp_path, "node-22", "v22.1.0")
    assert node_programs.find("nodejs20.x") == twenty and node_programs.find("nodejs22.x") == new
    assert node_programs.find("nodejs") == new
    with pytest.raises(
        UnavailableError, match=r"no nodejs18.x \(Node.js on its PATH: nodejs16.x, nodejs20.x, nodejs22.x\)"
    ) as caught:
        node_programs.find("nodejs18.x")
    assert "install Node.js 18" in str(caught.value)


def test_a_program_outside_usr_is_mounted(function: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = node_programs.find("nodejs")
    (tmp_path / "node").symlink_to(real)
    assert interpreters.find("nodejs").program == real
    monkeypatch.setattr(interpreters.node_programs, "find", lambda runtime: fake(tmp_path, "node22", "v22.0.0"))
    interpreters.find.cache_clear()
    try:
        found = interpreters.find("nodejs22.x")
        assert found.folders == (tmp_path / "node22",)
    finally:
        interpreters.find.cache_clear()


def test_a_debugged_worker_is_not_frozen_between_requests(node: Make) -> None:
    counter = node(
        "let ticks = 0; setInterval(() => ticks++, 5);\nexports.handler = async () => ticks;", NODE_OPTIONS="--inspect"
    )
    before = counter()
    time.sleep(0.2)
    counter.lab.loop.run_until_complete(asyncio.sleep(0))
    assert counter() > before + 3
