"""Every code block is run: by a doctest, from a file, or as a command in a shell."""

import ast
import json
import logging
import re
import shlex
import subprocess
import sys
from collections import defaultdict
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Final
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import fakeredis
import pytest
from flask import Flask
from playwright.sync_api import ConsoleMessage, Route

from flask_sse import Message, history, sse
from flask_sse.testing import harness, open_stream
from tests.support.chromium import chromium
from tests.support.client import StreamClient
from tests.support.processes import LOOPBACK, Process, free_port
from tests.support.redis_server import RedisServer
from tests.support.servers import ROOT
from tests.support.waiting import PATIENCE

from . import (
    test_cluster,
    test_cluster_compose,
    test_in_the_browser,
    test_presence,
    test_recipes,
    test_stream_recipes,
    test_streams,
    test_troubleshooting,
)
from .blocks import EXAMPLES, Kind, read_blocks
from .conftest import BuiltSite
from .running import (
    RUN_BY_A_TEST,
    apart,
    environment,
    listening,
    runs,
    serving,
    shell,
    wait_for,
)

_BIN: Final = Path(sys.executable).parent
_LOCAL: Final = "127.0.0.1:8000"
_INSTALL: Final = "pip install 'Flask-SSE[gevent]'"
_INSTALL_IN_MEMORY: Final = 'pip install "Flask-SSE[memory]"'
_VENV: Final = ("python3 -m venv .venv", ". .venv/bin/activate")
_ONE_MINUTE: Final = "flask run --debug --port 8000"
_QUICKSTART: Final = "gunicorn sse:app --worker-class gevent --bind 127.0.0.1:8000"
_PASSWORD: Final = "export REDIS_URL='redis://:p%40ssword@localhost'"
_REDIS_URL: Final = "export REDIS_URL=redis://localhost"
_DEPLOYED: Final = "gunicorn app:app --config gunicorn.conf.py"
_UWSGI: Final = (
    "uwsgi --http-socket 127.0.0.1:8000 --module app:app --master --die-on-term "
    "--gevent 1000 --gevent-monkey-patch"
)
_METRICS: Final = (
    "PROMETHEUS_MULTIPROC_DIR=metrics gunicorn metrics:app --config gunicorn_metrics.py"
)
_PREFIXED: Final = "FLASK_SSE_REDIS_URL=memory:// flask --app prefixed run"
_CELERY: Final = "celery --app celery_tasks worker"
_REDIS_CLI: Final = (
    """redis-cli PUBLISH sse '{"data": {"message": "Hello!"}, "type": "greeting"}'"""
)
_ACL: Final = (
    "redis-cli ACL SETUSER app on '>secret' '~flask-sse:*' '&*' +@connection +@pubsub "
    "+eval +evalsha",
    "redis-cli ACL SETUSER app +type +get +set +del +expire +pttl +xadd +xrange +xrevrange",
)
_COMPLETION: Final = 'eval "$(_FLASK_COMPLETE=bash_source flask)"'
_PUBLISHED: Final = {
    "flask sse publish 'Hello!'": ("sse", {"data": "Hello!"}),
    """flask sse publish '{"message": "Hello!"}' --json --type greeting --channel users.social""": (
        "users.social",
        {"data": {"message": "Hello!"}, "type": "greeting"},
    ),
    "tail -f access.log | flask sse publish - --lines --channel log": ("log", {"data": "GET /"}),
}
"""The event that each command publishes, and its channel."""
_DISCONNECTED: Final = {
    "flask sse disconnect --client alice": {"client": "alice"},
    "flask sse disconnect --client alice --channel chat.general": {
        "client": "alice",
        "channel": "chat.general",
    },
}
"""What each command tells the processes."""
_DATE: Final = "date | flask sse publish -"
_LISTEN: Final = "flask sse listen"
_LISTEN_TO_SEVERAL: Final = "flask sse listen users.social analytics"
_LISTEN_ONCE: Final = "flask sse listen --json --count 1"
_EXAMPLE: Final = "https://example.org/stream"
_LISTEN_TO_URL: Final = f"flask sse listen --url {_EXAMPLE} --header 'Cookie: session=...'"
_CHANNELS: Final = ("flask sse channels", "flask sse channels 'users.*' --json")
_DOCTOR: Final = "flask sse doctor"
_DOCTOR_OUTSIDE: Final = f"flask sse doctor --url {_EXAMPLE}"
_DOCTOR_FOR_OTHERS: Final = (
    f"flask sse doctor --url '{_EXAMPLE}?channel=users.social' --origin https://app.example.org"
)
_PUBLISHER: Final = """
import os
from flask import Flask
from flask_sse import sse

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ.get("REDIS_URL")
with app.app_context():
    print(sse.publish("Hello!"))
"""
_MISTAKE: Final = 'from flask_sse import sse\n\nsse.publish("Hello!", retry="3000")\n'
_OTHER_TESTS: Final = (
    test_cluster,
    test_cluster_compose,
    test_in_the_browser,
    test_presence,
    test_recipes,
    test_stream_recipes,
    test_streams,
    test_troubleshooting,
)
"""When they are imported, they note the blocks that they run."""


def test_every_block_is_run(site: BuiltSite) -> None:
    """A test runs every code block."""
    assert all(_OTHER_TESTS)
    blocks = read_blocks(site.doctrees)
    shown = {
        *(block.file for block in blocks if block.kind is Kind.FILE),
        *(command for block in blocks for command in block.commands),
        *(f"{block.page}: {block.language}" for block in blocks if block.kind is Kind.OTHER),
    }
    assert shown == RUN_BY_A_TEST
    assert len(blocks) >= 48


def test_python_blocks_are_run(site: BuiltSite, tmp_path: Path) -> None:
    """The doctest builder runs the examples in the pages themselves and in docstrings."""
    site.build("doctest", tmp_path)
    blocks = [block for block in read_blocks(site.doctrees) if block.kind is Kind.DOCTEST]
    summary = (tmp_path / "output.txt").read_text(encoding="utf-8")
    counted = re.search(r"^ +(\d+) tests?$", summary, re.M)
    assert counted
    assert int(counted[1]) >= len(blocks)


@runs("README: python", "app.py")
def test_readme_shows_the_example() -> None:
    """The README has the example that the other tests here run."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"```python\n{(EXAMPLES / 'app.py').read_text(encoding='utf-8')}```" in readme


@runs("make demo", "make test", "make release VERSION=2.0.0", "make release-check")
def test_make_knows_its_targets() -> None:
    """The commands for contributors are targets of the Makefile."""
    shell("make --dry-run demo test release release-check", ROOT)


@runs("ulimit -n 65536")
def test_limit_of_open_files(tmp_path: Path) -> None:
    """The limit can be set if the system's own limit is higher."""
    shell(
        '[ "$(ulimit -Hn)" != unlimited ] && [ "$(ulimit -Hn)" -lt 65536 ] || ulimit -n 65536',
        tmp_path,
    )


@runs("pip install --upgrade 'Flask-SSE[gevent]'", "pip install 'Flask-SSE[memory]'")
@pytest.mark.parametrize("extra", ["gevent", "memory"])
def test_extras_can_be_installed(tmp_path: Path, extra: str) -> None:
    """The named extras exist, and packages for all their dependencies exist."""
    install = f"uv pip install --quiet --dry-run --upgrade --python {sys.executable}"
    assert "does not have an extra" not in shell(f"{install} '{ROOT}[{extra}]'", tmp_path)


@pytest.mark.long
@runs(*_VENV, _INSTALL_IN_MEMORY, _ONE_MINUTE, "one_minute.py")
def test_in_one_minute(folder: Path) -> None:
    """With Python and one file, a browser shows each greeting, also after a reload."""
    port = free_port()
    place = folder / "minute"
    place.mkdir()
    app = (folder / "one_minute.py").rename(place / "app.py")
    create, activate = _VENV
    install = _INSTALL_IN_MEMORY.replace("Flask-SSE", str(ROOT))
    shell(f"{create} && {activate} && {install}", place)
    command = f"{activate} && exec {_ONE_MINUTE.replace('8000', str(port))}"
    with serving(command, port, place), chromium() as browser:
        page = browser.new_page()
        page.goto(f"http://{LOOPBACK}:{port}/")
        # The page publishes until its stream is open.
        page.evaluate("() => { setInterval(() => fetch('/hello'), 200); }")
        page.wait_for_function("greetings.textContent.startsWith('Hello!')")
        app.write_text(app.read_text(encoding="utf-8").replace("Hello!", "Welcome!"))
        page.wait_for_function("greetings.textContent.endsWith('Welcome!')")


@pytest.mark.long
@runs(_INSTALL, _QUICKSTART, "quickstart/sse.py", "quickstart/templates/index.html")
def test_quickstart(folder: Path) -> None:
    """The quickstart works with what it has installed, in an environment with nothing else."""
    quickstart = folder / "quickstart"
    create, activate = _VENV
    install = _INSTALL.replace("Flask-SSE", str(ROOT))
    shell(f"{create} && {activate} && {install}", quickstart)
    port = free_port()
    command = _QUICKSTART.replace(_LOCAL, f"{LOOPBACK}:{port}")
    with serving(f"{activate} && exec {command}", port, quickstart):
        _greet(port)


@runs(_PASSWORD)
def test_password_of_redis(tmp_path: Path) -> None:
    """Redis accepts the password of the example, which has a character with another meaning."""
    server = RedisServer(tmp_path, requirepass="p@ssword")
    server.start()
    try:
        export = _PASSWORD.replace("localhost", f"{LOOPBACK}:{server.port}")
        assert shell(f"{export}; python -c {shlex.quote(_PUBLISHER)}", tmp_path) == "0\n"
    finally:
        server.stop()


@runs(_REDIS_URL, _DEPLOYED, "deployment/gunicorn.conf.py", "deployment/behind_proxy.py")
def test_gunicorn_settings(folder: Path, shared_redis: RedisServer) -> None:
    """The application runs with the settings that are recommended."""
    port = free_port()
    place = folder / "deployment"
    settings = place / "gunicorn.conf.py"
    text = settings.read_text(encoding="utf-8")
    assert _LOCAL in text
    settings.write_text(text.replace(_LOCAL, f"{LOOPBACK}:{port}"))
    (place / "behind_proxy.py").rename(place / "app.py")
    export = _REDIS_URL.replace("redis://localhost", shared_redis.url)
    with serving(f"{export}; exec {_DEPLOYED}", port, place):
        _greet(port)


@runs("deployment/Procfile")
def test_heroku(folder: Path, shared_redis: RedisServer) -> None:
    """What Heroku starts listens on the port that Heroku chooses."""
    place = folder / "deployment"
    name, command = (place / "Procfile").read_text(encoding="utf-8").strip().split(": ", 1)
    assert name == "web"
    (place / "behind_proxy.py").rename(place / "app.py")
    port = free_port()
    given = {"REDIS_URL": shared_redis.url, "PORT": str(port), "WEB_CONCURRENCY": "1"}
    with serving(f"exec {command}", port, place, **given):
        _greet(port)


@runs(_UWSGI)
def test_uwsgi(folder: Path, shared_redis: RedisServer) -> None:
    """The application runs under uWSGI with the options that are recommended."""
    place = folder / "deployment"
    (place / "behind_proxy.py").rename(place / "app.py")
    port = free_port()
    command = f"exec {_UWSGI} --virtualenv {sys.prefix}".replace(_LOCAL, f"{LOOPBACK}:{port}")
    with serving(command, port, place, REDIS_URL=shared_redis.url):
        _greet(port)


@runs("deployment/app.service", "deployment/Containerfile")
def test_how_else_gunicorn_is_started() -> None:
    """A container and systemd run the same command."""
    service = (EXAMPLES / "deployment" / "app.service").read_text(encoding="utf-8")
    started = re.search(r"^ExecStart=\S+/(gunicorn .*)$", service, re.M)
    assert started
    assert started[1] == _DEPLOYED
    container = (EXAMPLES / "deployment" / "Containerfile").read_text(encoding="utf-8")
    command = re.search(r"^CMD (\[.*\])$", container, re.M)
    assert command
    assert shlex.join(json.loads(command[1])) == f"{_DEPLOYED} --bind 0.0.0.0:8000"
    assert _INSTALL.replace("install", "install --no-cache-dir") in container


@runs(_REDIS_CLI, "listener.py")
def test_command_line_and_listener(folder: Path, shared_redis: RedisServer) -> None:
    """A listening process gets the events that the command line of Redis publishes."""
    log = folder / "listener.log"
    process = Process([sys.executable, "listener.py"], 0, log, {}, folder)
    try:
        shared_redis.wait_listeners(1)
        published = shell(
            _REDIS_CLI.replace("redis-cli", f"redis-cli -p {shared_redis.port}"), folder
        )
        assert published == "1\n"
        wait_for(lambda: log.read_text(encoding="utf-8") == "Hello!\n")
    finally:
        process.stop()


@runs(*_ACL)
def test_user_of_redis(folder: Path, redis_server: RedisServer) -> None:
    """The user may do everything that history needs."""
    for command in _ACL:
        shell(command.replace("redis-cli", f"redis-cli -p {redis_server.port}"), folder)
    app = Flask(__name__)
    app.config["REDIS_URL"] = redis_server.url.replace("://", "://app:secret@")
    app.config["SSE_HISTORY"] = 10
    with app.app_context():
        start = history.position()
        sse.publish("x")
        with closing(history.messages(after=start)) as messages:
            assert next(messages).data == "x"
            sse.publish("y")
            assert next(messages).data == "y"


@runs(*_PUBLISHED, _DATE)
def test_publishing_from_the_command_line(folder: Path, shared_redis: RedisServer) -> None:
    """Each command publishes the event that the page shows."""
    (folder / "access.log").write_text("GET /\n")
    for command, (channel, payload) in _PUBLISHED.items():
        with listening(shared_redis, channel) as payloads:
            # A log that is followed has no end.
            shell(command.replace("tail -f", "cat"), folder)
            assert payloads() == [payload]
    with listening(shared_redis, "sse") as payloads:
        shell(_DATE, folder)
        [payload] = payloads()
        assert re.fullmatch(r"\{'data': '.*\d\d:\d\d:\d\d.*[^\\]'\}", str(payload))


@runs(*_DISCONNECTED)
def test_disconnecting_on_the_command_line(folder: Path, shared_redis: RedisServer) -> None:
    """Each command tells the processes whose streams must end."""
    for command, told in _DISCONNECTED.items():
        with listening(shared_redis, "flask-sse:control") as payloads:
            shell(command, folder)
            assert payloads() == [told]


@runs(_LISTEN, _LISTEN_TO_SEVERAL, _LISTEN_ONCE, *_CHANNELS)
def test_listening_on_the_command_line(folder: Path, shared_redis: RedisServer) -> None:
    """A listener gets the published events, and its channel is in the list."""
    log = folder / "listen.log"
    for command, name in ((_LISTEN, "sse"), (_LISTEN_TO_SEVERAL, "users.social")):
        process = _start(command, log, folder)
        try:
            shared_redis.wait_listeners(1, name)
            shown = shell(f"{_CHANNELS[0]}; {_CHANNELS[1]}", folder)
            assert f"    1  {name}\n" in shown
            assert ('{"channel": "users.social", "processes": 1}\n' in shown) is (name != "sse")
            _say_hello(shared_redis, name)
            wait_for(partial(_has_line, log, f"{name} message Hello!"))
        finally:
            process.stop()
    process = _start(_LISTEN_ONCE, log, folder)
    try:
        shared_redis.wait_listeners(1)
        _say_hello(shared_redis, "sse")
        assert process.wait(PATIENCE) == 0
        assert '{"channel": "sse", "data": "Hello!"}\n' in log.read_text()
    finally:
        process.stop()


@runs(_LISTEN_TO_URL, _DOCTOR, _DOCTOR_OUTSIDE, _DOCTOR_FOR_OTHERS, "command-line: text")
def test_looking_from_outside(site: BuiltSite, folder: Path, shared_redis: RedisServer) -> None:
    """A listener to a server gets its events, and the doctor prints the lines of the page."""
    port = free_port()
    local = f"http://{LOOPBACK}:{port}/stream"
    log = folder / "listen.log"
    with (folder / "app.py").open("a") as app:
        app.write('\napp.config["SSE_KEEPALIVE"] = 0.5\n')
    with serving(f"exec gunicorn app:app --bind {LOOPBACK}:{port}", port, folder):
        process = _start(_LISTEN_TO_URL.replace(_EXAMPLE, local), log, folder)
        try:
            shared_redis.wait_listeners(1)
            shell("flask sse publish 'Hello!'", folder)
            wait_for(partial(_has_line, log, f"{local} message Hello!"))
        finally:
            process.stop()
        said = shell(_DOCTOR_OUTSIDE.replace(_EXAMPLE, local), folder)
        inside = shell(_DOCTOR, folder)
        for_others = _DOCTOR_FOR_OTHERS.replace(_EXAMPLE, local)
        others = shell(f"{for_others} || [ $? = 1 ]", folder)
    assert "fail  CORS: pages of https://app.example.org may not connect" in others
    # The second block is about a cluster.
    shown, _ = (
        block.text
        for block in read_blocks(site.doctrees)
        if (block.page, block.kind) == ("command-line", Kind.OTHER)
    )
    lines = [_without_numbers(line) for line in shown.replace("localhost", "").splitlines()]
    own = shared_redis.url.removeprefix("redis://")
    assert [_without_numbers(line) for line in said.replace(own, "").splitlines()] == lines
    assert said.startswith(inside.partition("redis:")[0])


@runs(_COMPLETION)
def test_completion_of_the_shell(folder: Path) -> None:
    """The completion script of Flask works in bash, and knows our commands."""
    asked = "COMP_WORDS=(flask sse pub) COMP_CWORD=2; _flask_completion flask"
    shown = shell(f'{_COMPLETION}; {asked}; echo "${{COMPREPLY[@]}}"', folder)
    assert shown == "publish\n"


def test_every_check_is_described(site: BuiltSite) -> None:
    """The table names each of the doctor's checks once, and nothing else."""
    page = (ROOT / "docs" / "command-line.rst").read_text(encoding="utf-8")
    rows = re.findall(r"^   \* - (.+)$", page, re.M)[1:]
    described = [name for row in rows for name in row.split(", ")]
    checks = {
        argument.value
        for path in (ROOT / "flask_sse" / "_doctor").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"ok", "warn", "fail", "soon"}
        and isinstance(argument := node.args[0], ast.Constant)
    }
    assert sorted(described) == sorted(map(str, checks))


@runs("python cron_job.py 100", "cron_job.py")
def test_cron_job(folder: Path, shared_redis: RedisServer) -> None:
    """The script publishes to the application's Redis."""
    with listening(shared_redis, "dashboard") as payloads:
        shell("python cron_job.py 100", folder)
        assert payloads() == [{"data": {"visitors": 100}, "type": "statistics"}]


@pytest.mark.long
@runs("celery_tasks.py", _CELERY)
def test_celery(folder: Path, shared_redis: RedisServer) -> None:
    """A task that a thread starts publishes each of its steps, in a real Celery worker."""
    worker = f"exec {_CELERY} --pool solo --concurrency 1"
    # The threads of a server know only Celery's default application.
    delay = (
        "from threading import Thread; from celery_tasks import export; "
        "Thread(target=export.delay, args=('alice', 2)).start()"
    )
    process = Process(["bash", "-c", worker], 0, folder / "celery.log", environment(), folder)
    try:
        with listening(shared_redis, "user.alice") as payloads:
            shell(f'python -c "{delay}"', folder)
            assert payloads(2) == [
                {"data": {"page": page, "pages": 2}, "type": "progress"} for page in (1, 2)
            ]
    finally:
        process.stop()


@runs("pytest test_greeting.py", "test_greeting.py")
def test_tests_of_the_testing_page(folder: Path) -> None:
    """The recommended tests pass with the application of the quickstart."""
    (folder / "one_minute.py").replace(folder / "app.py")
    # As installed, the fixture needs no file: see tests/static/test_wheel.py.
    (folder / "conftest.py").write_text("from _flask_sse_pytest import sse_harness")
    assert "2 passed" in shell("pytest test_greeting.py -p no:cacheprovider -W error", folder)


@runs(_PREFIXED, "prefixed.py", "README: javascript", "index: javascript")
def test_script_of_the_readme(site: BuiltSite, folder: Path) -> None:
    """In a browser, the README's script gets the events of the README's application."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    script = re.search(r"^```javascript\n(.*?)^```", readme, re.M | re.S)
    assert script
    assert script[1].rstrip() in {
        block.text.rstrip() for block in read_blocks(site.doctrees) if block.page == "index"
    }
    port = free_port()
    with serving(f"{_PREFIXED} --port {port}", port, folder), chromium() as browser:
        page = browser.new_page()
        page.goto(f"http://{LOOPBACK}:{port}/hello")
        # The page publishes until its stream is open and the script has had its greeting.
        page.evaluate(script[1])
        with page.expect_console_message(_is_greeting):
            page.evaluate("() => { setInterval(() => fetch('/hello'), 200); }")


@runs("typing: text")
def test_message_of_the_type_checker(site: BuiltSite, tmp_path: Path) -> None:
    """The page on types quotes mypy correctly."""
    (shown,) = (
        block.text
        for block in read_blocks(site.doctrees)
        if (block.page, block.kind) == ("typing", Kind.OTHER)
    )
    (tmp_path / "mistake.py").write_text(_MISTAKE)
    done = subprocess.run(
        [_BIN / "mypy", "--cache-dir", ROOT / ".mypy_cache", "mistake.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=4 * PATIENCE,
    )
    assert shown in done.stdout


@runs("resumed_page.py")
def test_a_page_with_a_position(folder: Path, shared_redis: RedisServer) -> None:
    """Events between the rendering of a page and its connection arrive."""
    port = free_port()
    command = f"flask --app 'resumed_page:create_app(\"{shared_redis.url}\")' run --port {port}"

    def add_first(route: Route) -> None:
        # The page has been rendered, and its script is about to connect.
        _add_news(port, "in between")
        route.continue_()

    with serving(command, port, folder), chromium() as browser:
        page = browser.new_page()
        page.route("**/stream*", add_first)
        page.goto(f"http://{LOOPBACK}:{port}/")
        page.wait_for_function("news.children.length == 2")
        _add_news(port, "live")
        page.wait_for_function("news.children.length == 3")
        assert page.locator("#news").all_inner_texts() == ["Welcome!\nin between\nlive"]


@runs("stream_log.py")
def test_log_of_streams() -> None:
    """There is a line for each stream that ends, and for each rejected client."""
    apart(_check_stream_log)


@pytest.mark.long
@runs("mkdir -p metrics", _METRICS, "metrics.py", "deployment/gunicorn_metrics.py")
def test_metrics(folder: Path) -> None:
    """Prometheus gets the sums over all workers from any worker, and forgets dead workers."""
    port = free_port()
    settings = (folder / "deployment" / "gunicorn_metrics.py").read_text(encoding="utf-8")
    (folder / "gunicorn_metrics.py").write_text(settings.replace(_LOCAL, f"{LOOPBACK}:{port}"))
    command = _METRICS.replace("gunicorn ", "exec gunicorn ")
    with serving(f"mkdir -p metrics && {command}", port, folder) as process, ExitStack() as stack:
        clients = [stack.enter_context(StreamClient(port).open()) for _ in range(6)]
        wait_for(lambda: _figures(port)["sse_clients"] == 6)
        with urlopen(f"http://{LOOPBACK}:{port}/hello", timeout=PATIENCE) as answer:
            assert answer.read() == b"Message sent!"
        for client in clients:
            client.wait_events(1)
        wait_for(lambda: _figures(port)["sse_deliveries_total"] == 6)
        figures = _figures(port)
        assert figures["sse_messages_published_total"] == 1
        assert figures["sse_lag_seconds_count"] >= 1
        clients.pop().close()
        wait_for(lambda: _figures(port)['sse_clients_gone_total{reason="client"}'] == 1)
        assert _figures(port)["sse_clients"] == 5
        for worker in process.children():
            worker.kill()
        for client in clients:
            client.wait_end()
        wait_for(lambda: _figures(port)["sse_clients"] == 0)
        assert _figures(port)["sse_deliveries_total"] == 6


@runs("access_control.py")
def test_access_control() -> None:
    """Only an administrator may listen to the channel."""
    apart(_check_access_control)


@runs("signed_channels.py")
def test_signed_channels() -> None:
    """A token opens only the channel for which it was made."""
    apart(_check_signed_channels)


@runs("several_apps.py")
def test_several_apps() -> None:
    """Two applications, and two streams of one of them, are independent."""
    apart(_check_several_apps)


@runs("app_factory.py")
def test_app_factory() -> None:
    """A factory makes several applications, each with its own access control."""
    apart(_check_app_factory)


@runs("typed_app.py")
def test_typed_app() -> None:
    """Reported values can be read back."""
    apart(_check_typed_app)


def _add_news(port: int, text: str) -> None:
    url = f"http://{LOOPBACK}:{port}/news"
    with urlopen(url, data=urlencode({"text": text}).encode(), timeout=PATIENCE) as answer:
        assert answer.status == 204


def _check_stream_log() -> None:
    import stream_log

    app = Flask("logged")
    app.config["SSE_MAX_CLIENTS"] = 1
    app.register_blueprint(sse, url_prefix="/stream")
    lines: list[str] = []

    class Lines(logging.Handler):
        """Collects log records."""

        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    stream_log.log.addHandler(Lines())
    stream_log.log.setLevel(logging.INFO)
    with harness(app) as tested:
        tested.open("news")
        tested.open("news")
    refused, gone = lines
    assert refused == "somebody got no stream of news (full)"
    assert gone.startswith("somebody has left news (client) after 0.")
    assert gone.endswith(" s, with 0 messages in 2 bytes")


def _figures(port: int) -> dict[str, float]:
    """Return the metrics that Prometheus gets."""
    pages: list[str] = []

    def has_page() -> bool:
        try:
            with urlopen(f"http://{LOOPBACK}:{port}/metrics", timeout=PATIENCE) as answer:
                pages.append(answer.read().decode())
        except HTTPError as error:
            # prometheus_client can't read a file that gunicorn removes for a dead worker.
            error.close()
            if error.code != 500:
                raise
        return bool(pages)

    wait_for(has_page)
    pairs = (line.rpartition(" ") for line in pages[0].splitlines() if not line.startswith("#"))
    return defaultdict(float, {name: float(value) for name, _, value in pairs})


def _check_access_control() -> None:
    import access_control

    client = access_control.create_app("memory://").test_client()
    assert client.get("/stream?channel=analytics").status_code == 403
    assert client.get("/stream").status_code == 200
    with client.session_transaction() as session:
        session["role"] = "admin"
    assert client.get("/stream?channel=analytics").status_code == 200


def _check_signed_channels() -> None:
    import signed_channels

    app = signed_channels.create_app("memory://")
    client = app.test_client()
    assert client.get("/my-stream").status_code == 401
    with client.session_transaction() as session:
        session["user"] = "alice"
    url = client.get("/my-stream").get_json()["url"]
    assert client.get("/stream").status_code == 403
    assert client.get("/stream?channel=user.alice").status_code == 403
    assert client.get(url.replace("alice", "bob", 1)).status_code == 403
    assert client.get(url + "x").status_code == 403
    with open_stream(client, url=url) as stream:
        with app.app_context():
            sse.publish("for alice", channel="user.alice")
        assert stream.get() == Message("for alice")


def _check_several_apps() -> None:
    import several_apps

    shop = several_apps.create_shop("memory://", fakeredis.FakeStrictRedis())
    blog = several_apps.create_blog("memory://")
    with (
        open_stream(shop, url="/stream") as stream,
        open_stream(shop, url="/audit") as audit,
        open_stream(blog, url="/news") as news,
    ):
        with blog.app_context():
            sse.publish("news")
        with shop.app_context():
            several_apps.audit.publish("audited")
            sse.publish("sold")
        received = [each.get() for each in (stream, audit, news)]
    assert received == [Message("sold"), Message("audited"), Message("news")]


def _check_app_factory() -> None:
    import app_factory

    shop = app_factory.create_app("memory://", frozenset({"orders"}))
    blog = app_factory.create_app("memory://", frozenset({"drafts"}))
    for app, channel in ((shop, "orders"), (blog, "drafts")):
        assert app.test_client().get(f"/stream?channel={channel}").status_code == 403
    for app, channel in ((shop, "drafts"), (blog, "orders")):
        with open_stream(app, channel) as stream:
            with app.test_request_context():
                assert app.url_for("sse.stream") == "/stream"
                assert sse.publish(app.name, channel=channel) == 1
            assert stream.get() == Message("app_factory")
    # The channel of a URL that names none.
    club = app_factory.create_app("memory://", frozenset({"sse"})).test_client()
    urls = ("/stream", "/stream?channel=", "/stream?channel=sse")
    assert [club.get(url).status_code for url in urls] == [403, 403, 403]
    with club.session_transaction() as session:
        session["user"] = "alice"
    with open_stream(club):
        pass


def _check_typed_app() -> None:
    import typed_app

    assert typed_app.page(Message({"page": 1, "pages": 2})) == 1
    app = Flask("typed")
    app.config["REDIS_URL"] = "memory://"
    read: list[int] = []

    def listen() -> None:
        with app.app_context():
            read.append(next(iter(typed_app.pages())))

    thread = Thread(target=listen)
    thread.start()
    with app.app_context():
        wait_for(lambda: typed_app.report({"page": 3, "pages": 4}) == 1)
    thread.join(PATIENCE)
    assert read == [3]


def _start(command: str, log: Path, folder: Path) -> Process:
    """Run a command of the application until it is stopped."""
    return Process(["bash", "-c", f"exec {command}"], 0, log, environment(), folder)


def _say_hello(server: RedisServer, channel: str) -> None:
    # redis-py leaves some types out.
    server.admin.publish(  # pyright: ignore[reportUnknownMemberType]
        channel, '{"data": "Hello!"}'
    )


def _has_line(log: Path, end: str) -> bool:
    return any(line.endswith(end) for line in log.read_text().splitlines())


def _without_numbers(line: str) -> str:
    return re.sub(r"\d+(\.\d+)*( ms)?( s)?", "0", line)


def _greet(port: int) -> None:
    """Open the stream of the quickstart, request a greeting, and receive it."""
    with StreamClient(port) as client:
        client.open()
        with urlopen(f"http://{LOOPBACK}:{port}/hello", timeout=PATIENCE) as answer:
            assert answer.read() == b"Message sent!"
        [event] = client.wait_events(1)
        assert (event.type, event.data) == ("greeting", '{"message": "Hello!"}')


def _is_greeting(message: ConsoleMessage) -> bool:
    return message.text == "Hello!"
