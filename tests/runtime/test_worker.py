"""Handlers behave as on AWS Lambda; bad ones harm nothing but their own request."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from owsgit.model.service import Invocation
from owsgit.runtime import python_worker
from owsgit.runtime.budget import WORKERS_MAX
from owsgit.runtime.config import InitError
from tests.runtime.conftest import Function

Make = Callable[..., Function]
OK = "def handler(event, context): return event\n"


def test_an_event_goes_in_and_an_answer_comes_out(function: Make) -> None:
    echo = function(OK)
    for event in (None, {}, [1, 2.5, "ü\u2028", True], {"a": {"b": None}}, "x" * 1_000_000):
        assert echo(event) == event


def test_numbers_and_texts_come_through_as_json_has_them(function: Make) -> None:
    echo = function("def handler(event, context): return [event, type(event).__name__]")
    for event in (
        2**64,
        -(2**70),
        12345678901234567890123,
        1e300,
        0.1,
        10**18,
        "9" * 40,
        {"card": "4" * 19, "n": 2**65},
    ):
        assert echo(event) == [event, type(event).__name__]
    deep: Any = "x"
    for _ in range(600):
        deep = [deep]
    assert echo(deep) == [deep, "list"]


@pytest.mark.parametrize(
    ("returned", "answer"),
    [
        ("{1: 'a', None: 'b', True: 'c', 1.5: 'd'}", {"1": "a", "null": "b", "1.5": "d"} | {"1": "c"}),
        ("(1, 2)", [1, 2]),
        ("__import__('collections').OrderedDict(a=1)", {"a": 1}),
        ("__import__('decimal').Decimal('1.5')", 1.5),
        ("2 ** 70", 2**70),
        ("type('S', (str,), {})('sub')", "sub"),
        ("{'\\u2028': '\\u00fc'}", {"\u2028": "\u00fc"}),
    ],
)
def test_what_a_handler_returns_becomes_json_as_json_dumps_has_it(function: Make, returned: str, answer: Any) -> None:
    assert function(f"def handler(event, context): return {returned}")() == answer


def test_an_answer_has_the_very_bytes_that_json_dumps_gives(function: Make) -> None:
    text = "".join(map(chr, range(0x300))) + '\u2028\U0001f600"\\/'
    values = [
        "a" * 5000,
        text * 10,
        {"a": 1, "b": [1.0, None]},
        {"body": text * 10, "n": {"x": "y" * 5000}, text: True},
    ]
    made = function("def handler(event, context): return event")
    for value, answer in zip(values, made.run(*values), strict=True):
        assert answer.payload == json.dumps(value, ensure_ascii=False).encode()


@pytest.mark.parametrize("returned", ["__import__('datetime').date.today()", "b'x'", "object()", "{(1, 2): 3}"])
def test_what_is_no_json_is_refused_as_on_lambda(function: Make, returned: str) -> None:
    error = function(f"def handler(event, context): return {returned}").error()
    assert error["errorType"] == "Runtime.MarshalError"


def test_the_context_is_complete(function: Make) -> None:
    found = function(
        """
def handler(event, context):
    names = ["function_name", "function_version", "invoked_function_arn", "memory_limit_in_mb", "aws_request_id",
             "log_group_name", "log_stream_name"]
    return {**{name: getattr(context, name) for name in names}, "left": context.get_remaining_time_in_millis(),
            "identity": context.identity.cognito_identity_id, "client": context.client_context.client.app_title,
            "custom": context.client_context.custom}
"""
    )(None, request_id="abc", client_context=b'{"client": {"app_title": "t"}, "custom": {"k": 1}}')
    assert 4000 < found.pop("left") <= 5000
    assert "/[$LATEST]" in found.pop("log_stream_name")
    assert found == {
        "function_name": "f", "function_version": "$LATEST", "invoked_function_arn": "arn:aws:lambda:us-east-1:1:function:f",
        "memory_limit_in_mb": "128", "aws_request_id": "abc", "log_group_name": "/aws/lambda/f", "identity": None,
        "client": "t", "custom": {"k": 1},
    }  # fmt: skip


def test_the_environment_is_lambdas_and_the_functions_own(function: Make) -> None:
    found = function("import os\ndef handler(event, context): return dict(os.environ)", GREETING="hi")(
        None, trace_id="Root=1-x"
    )
    assert (
        found["GREETING"] == "hi"
        and found["AWS_LAMBDA_FUNCTION_NAME"] == "f"
        and found["LAMBDA_TASK_ROOT"] == "/var/task"
    )
    assert (
        found["_HANDLER"] == "app.handler"
        and found["_X_AMZN_TRACE_ID"] == "Root=1-x"
        and found["AWS_REGION"] == "us-east-1"
    )
    assert "HOSTNAME" not in found and "SSH_AUTH_SOCK" not in found


def test_a_worker_stays_warm_and_keeps_its_globals(function: Make) -> None:
    counter = function("n = 0\ndef handler(event, context):\n    global n; n += 1; return n")
    assert [counter() for _ in range(3)] == [1, 2, 3]


def test_the_log_has_start_output_end_and_report_with_the_request_id(function: Make) -> None:
    talker = function("import logging\ndef handler(event, context):\n    print('out'); logging.warning('careful')")
    talker(request_id="r1")
    start, out, warning, end, report = talker.log()
    assert start == "START RequestId: r1 Version: $LATEST" and out == "out" and end == "END RequestId: r1"
    assert warning.startswith("[WARNING]\t") and warning.endswith("Z\tr1\tcareful")
    assert (
        report.startswith("REPORT RequestId: r1\tDuration: ")
        and "Memory Size: 128 MB" in report
        and "Init Duration" in report
    )


@pytest.mark.parametrize(
    ("code", "handler", "kind", "told"),
    [
        (
            "import nowhere",
            "app.handler",
            "Runtime.ImportModuleError",
            "Unable to import module 'app': No module named 'nowhere'",
        ),
        (OK, "other.handler", "Runtime.ImportModuleError", "Unable to import module 'other'"),
        (OK, "app.other", "Runtime.HandlerNotFound", "Handler 'other' missing on module 'app'"),
        ("def (:", "app.handler", "Runtime.UserCodeSyntaxError", "Syntax error in module 'app'"),
        ("1/0", "app.handler", "ZeroDivisionError", "division by zero"),
        ("import sys; sys.exit(3)", "app.handler", "Runtime.ExitError", "exit"),
        ("import os; os._exit(3)", "app.handler", "Runtime.ExitError", "exit status 3"),
    ],
)
def test_code_that_cannot_be_loaded_is_told_at_deployment(
    function: Make, code: str, handler: str, kind: str, told: str
) -> None:
    bad = function(code, handler=handler)
    with pytest.raises(InitError, match=kind) as caught:
        bad.warm()
    assert told in caught.value.report["errorMessage"]
    assert ("nowhere in a requirements.txt" in caught.value.problems[0].remedy) == ("nowhere" in told)
    assert bad.error()["errorType"] == kind


@pytest.mark.parametrize("said", [b"[1", b"5", b"[" * 100_000, b'{"errorMessage": 1, "stackTrace": {}}', b"\xff"])
def test_whatever_a_worker_says_of_its_init_is_an_init_error(function: Make, said: bytes) -> None:
    code = f"""\
import os, stat, struct
said = {said[:10]!r} * ({len(said)} // len({said[:10]!r})) if {len(said) > 1000} else {said!r}
for fd in range(3, 30):
    try:
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            os.write(fd, struct.pack({python_worker.HEADER.format!r}, len(said), {python_worker.INIT_ERROR}, 0) + said)
    except OSError:
        pass
while True:
    pass
"""
    with pytest.raises(InitError, match=r"Runtime\.Unknown"):
        function(code).warm()


def test_an_init_that_hangs_is_ended(function: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("owsgit.runtime.worker.INIT_SECONDS_MAX", 0.5)
    with pytest.raises(InitError, match="Init phase timed out"):
        function("import time; time.sleep(100)").warm()


@pytest.mark.parametrize(
    ("body", "kind", "told"),
    [
        ("raise ValueError('bad order')", "ValueError", "bad order"),
        ("return {1, 2}", "Runtime.MarshalError", "set is not JSON serializable"),
        ("return '\\ud800'", "Runtime.MarshalError", "Unable to marshal response"),
        ("return 'x' * (7 * 1024 * 1024)", "Function.ResponseSizeTooLarge", "exceeded maximum allowed payload size"),
        ("return handler(event, context)", "RecursionError", "recursion"),
        ("import sys; sys.exit(1)", "Runtime.ExitError", "exit status 1"),
        ("import sys; sys.exit(0)", "Runtime.ExitError", "without providing a reason"),
        ("import os; os.kill(os.getpid(), 9)", "Runtime.ExitError", ""),
        ("import ctypes; ctypes.string_at(0)", "Runtime.ExitError", ""),
        (
            "import os\n    for fd in range(3, 100):\n        try: os.close(fd)\n        except OSError: pass",
            "Runtime.ExitError",
            "",
        ),
        (
            "import os\n    for fd in range(3, 100):\n        try: os.write(fd, b'garbage' * 9)\n        except OSError: pass",
            "Runtime.ExitError",
            "",
        ),
        ("import time; time.sleep(60)", "Sandbox.Timedout", "Task timed out after 1.00 seconds"),
        ("while True: pass", "Sandbox.Timedout", "Task timed out"),
        (
            "import signal\n    for n in range(1, 32):\n        try: signal.signal(n, signal.SIG_IGN)\n        except OSError: pass\n    while True: pass",
            "Sandbox.Timedout",
            "Task timed out",
        ),
        ("x = []\n    while True: x.append(b'x' * (1 << 20))", "Runtime.OutOfMemory", "signal: killed"),
        ("while True: print('x' * 1000)", "Sandbox.Timedout", "Task timed out"),
        ("import sys\n    while True: sys.stdout.write('x' * 1000)", "Sandbox.Timedout", "Task timed out"),
    ],
)
def test_a_bad_handler_harms_its_own_request_only(function: Make, body: str, kind: str, told: str) -> None:
    code = f"""
import sys
sys.setrecursionlimit(500)
def handler(event, context):
    if event is None: return "well"
    {body}
"""
    made = function(code, timeout=1.0)
    assert made() == "well"
    error = made.error({"do": "it"})
    if kind == "Runtime.OutOfMemory" and made.lab.sandbox.note:
        kind, told = "MemoryError", ""  # without control groups the kernel refuses memory instead of ending the worker
    assert error["errorType"] == kind and told in error["errorMessage"]
    assert made() == "well", "the next request is answered"


def test_an_exception_is_reported_as_lambda_does(function: Make) -> None:
    error = function("def handler(event, context):\n    return inner()\ndef inner():\n    raise KeyError('k')").error()
    assert error["errorType"] == "KeyError" and error["errorMessage"] == "'k'" and error["requestId"] == "request-0"
    assert len(error["stackTrace"]) == 2 and 'File "/var/task/app.py", line 4, in inner' in error["stackTrace"][1]


def test_a_flood_of_log_is_cut_and_said(function: Make) -> None:
    noisy = function(  # lines so long that the limit in bytes comes before that in lines
        "def handler(event, context):\n    for n in range(30000): print('x' * 199)\n    return 'done'", timeout=20.0
    )
    assert noisy() == "done"
    log = noisy.log()
    assert any("the rest is dropped" in line for line in log) and log[-1].startswith("REPORT")
    assert 1_000_000 < sum(len(line) for line in log) < 1_300_000


def test_a_fork_bomb_is_contained(function: Make) -> None:
    bomb = function(
        """
import os, time
def handler(event, context):
    if event is None: return "well"
    while True:
        try:
            os.fork()
        except OSError:
            time.sleep(0.01)
""",
        timeout=2.0,
    )
    bomb()
    assert bomb.error("go")["errorType"] in ("Sandbox.Timedout", "Runtime.OutOfMemory", "Runtime.ExitError")
    assert bomb() == "well"


def test_requests_run_at_once_up_to_the_limit_and_wait_beyond_it(function: Make) -> None:
    slow = function(
        "import time\ndef handler(event, context): time.sleep(0.3); return context.aws_request_id", workers=3
    )
    slow.warm()
    began = time.monotonic()
    answers = slow.run(*range(6))
    took = time.monotonic() - began
    assert [json.loads(answer.payload) for answer in answers] == [f"request-{n}" for n in range(6)]
    assert 0.6 <= took < 1.5


def test_answers_never_get_mixed_up(function: Make) -> None:
    echo = function("import random, time\ndef handler(event, context): time.sleep(random.random() / 500); return event")
    events: list[Any] = [{"n": n, "pad": "x" * (n * 37 % 5000)} for n in range(300)]
    assert [json.loads(answer.payload) for answer in echo.run(*events)] == events


def test_a_worker_that_dies_between_requests_is_replaced(function: Make) -> None:
    dying = function(
        "import os, threading\ndef handler(event, context):\n    threading.Timer(0.05, lambda: os._exit(1)).start(); return os.getpid()"
    )
    dying()
    time.sleep(0.3)
    dying.lab.loop.run_until_complete(asyncio.sleep(0.05))
    dying()


def test_a_flood_of_empty_lines_is_cut_too(function: Make) -> None:
    noisy = function(
        "import sys\ndef handler(event, context): sys.stdout.write('\\n' * 1_000_000); return 'done'", timeout=20.0
    )
    assert noisy() == "done"
    assert len(noisy.log()) < 10_100


def test_a_busy_function_leaves_room_for_the_first_workers_of_others(function: Make, lab) -> None:  # type: ignore[no-untyped-def]
    lab.budget.workers_max = lab.budget.count + 8
    try:
        greedy = function("import time\ndef handler(event, context): time.sleep(1.5)", workers=100)
        modest = function("def handler(event, context): return 'here'")

        async def both() -> list[object]:
            calls = [asyncio.ensure_future(greedy.pool.invoke(Invocation(b"{}", str(n)))) for n in range(30)]
            await asyncio.sleep(0.5)
            answer = await modest.pool.invoke(Invocation(b"{}", "m"))
            return [answer, *await asyncio.gather(*calls, return_exceptions=True)]

        answer, *_ = lab.loop.run_until_complete(both())
        assert answer.payload == b'"here"'
    finally:
        lab.budget.workers_max = WORKERS_MAX


VENDOR = "import os, sys\nsys.path.insert(0, os.path.join(os.path.dirname(__file__), 'vendor'))\n"


@pytest.mark.parametrize("name", ["boto3", "six", "urllib3", "jmespath"])
def test_a_folder_that_the_code_puts_on_the_path_comes_before_the_sdk(function: Make, name: str) -> None:
    made = function(
        f"{VENDOR}import {name}\ndef handler(event, context): return {name}.OWN",
        others={f"vendor/{name}/__init__.py": "OWN = 1"},
    )
    assert made() == 1


def test_the_sdk_is_as_it_would_be_if_it_were_imported_only_now(function: Make) -> None:
    made = function(
        "import sys\nthere = 'boto3' in sys.modules\nimport boto3, botocore.session, importlib.metadata, importlib.resources\n"
        "def handler(event, context):\n"
        "    return [there, boto3.__spec__.name, boto3.__spec__.loader is boto3.__loader__, sys.modules['boto3'] is boto3,\n"
        "        importlib.metadata.version('boto3') == boto3.__version__, importlib.resources.files(boto3).joinpath('session.py').is_file(),\n"
        "        importlib.reload(boto3) is boto3, [type(each).__name__ for each in sys.meta_path].count('SetAside')]"
    )
    assert made() == [False, "boto3", True, True, True, True, True, 0]


def test_what_the_sdk_makes_use_of_if_it_is_there_is_used(function: Make) -> None:
    made = function(
        "from botocore import httpsession\ndef handler(event, context): return httpsession.where()",
        others={"certifi/__init__.py": "def where(): return 'own'"},
    )
    assert made() == "own"


def test_a_worker_that_interrupts_itself_ends_by_that_signal(function: Make) -> None:
    found = function("import os, signal\ndef handler(event, context): os.kill(os.getpid(), signal.SIGINT)").error()
    assert "signal: Interrupt" in found["errorMessage"]
