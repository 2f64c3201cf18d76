"""The examples of the page on streams chosen in code."""

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from flask import Flask, Response
from playwright.sync_api import Browser, Route
from redis.exceptions import NoPermissionError

from flask_sse import sse, streams
from flask_sse.testing import open_stream
from tests.support.client import StreamClient
from tests.support.redis_server import RedisServer
from tests.support.waiting import PATIENCE

from .running import post, runs, serving_app, shell

# Logs a user in, and adds items.
_MORE: Final = """
import several
from flask import request, session
from several import app

@app.get("/login/<int:user>")
def log_in(user):
    session["user_id"] = user
    return ""

@app.post("/items")
def add():
    several.add(request.form["channel"], request.form["text"])
    return ""

@app.post("/lose")
def lose():
    sse = several.sse
    return str(sse.redis.delete(*sse.redis.keys("flask-sse:*user.7*")))
"""
_ALLOW: Final = "redis-cli ACL SETUSER app '&flask-sse:control'"
_ITEMS: Final = "[...document.querySelectorAll('li')].map((item) => item.textContent).join('|')"


@pytest.fixture
def place(folder: Path) -> Path:
    """Return the folder of the examples."""
    return folder / "streams"


@runs("streams/several.py", "streams/templates/several.html")
def test_several_channels(place: Path, browser: Browser) -> None:
    """The page has the items of its user's channels, from before and after it has connected."""
    (place / "more.py").write_text(_MORE)
    with (
        serving_app("more", place, SECRET_KEY="secret") as url,
        browser.new_context() as context,
    ):
        page = context.new_page()

        def wait_items(*items: str) -> None:
            page.wait_for_function(f"{_ITEMS} === {'|'.join(items)!r}")

        def add(channel: str, text: str) -> None:
            post(f"{url}/items", channel=channel, text=text)

        def connect(route: Route) -> None:
            add("user.7", "two")
            route.continue_()

        for path in ("events", "items/news", ""):
            answer = page.request.get(f"{url}/{path}")
            assert answer.status == 403
        page.request.get(f"{url}/login/7")
        assert page.request.get(f"{url}/items/user.8").status == 403
        add("news", "<b>one</b>")
        # Published after the page has been rendered, and before it has connected.
        page.route("**/events?**", connect)
        page.goto(url)
        wait_items("news: <b>one</b>", "user.7: two")
        page.unroute("**/events?**")
        add("user.8", "not for this user")
        add("user.7", "three")
        add("news", "four")
        wait_items("news: <b>one</b>", "news: four", "user.7: two", "user.7: three")
        # Redis loses the log of one channel: it is fetched again, and the other one is not.
        page.evaluate("items.news = []")
        post(f"{url}/lose")
        add("user.7", "five")
        wait_items("user.7: two", "user.7: three", "user.7: five")
        add("news", "six")
        wait_items("news: six", "user.7: two", "user.7: three", "user.7: five")


@runs("streams/checked.py")
def test_a_view_of_the_blueprint(place: Path) -> None:
    """The handler of the blueprint also checks a stream in code that is one of its views."""
    (place / "more.py").write_text(_MORE.replace("several", "checked").partition("@app.post")[0])
    with serving_app("more", place, SECRET_KEY="secret") as url:
        port = int(urlsplit(url).port or 0)
        for path in ("/stream", "/stream/mine"):
            with StreamClient(port, path=path) as client:
                assert client.read_headers().status == 403
        with urlopen(f"{url}/login/7", timeout=PATIENCE) as answer:
            cookie = answer.headers["Set-Cookie"].partition(";")[0]
        for path in ("/stream", "/stream/mine"):
            with StreamClient(port, path=path, headers=f"Cookie: {cookie}\r\n") as client:
                client.open()


@runs(_ALLOW)
def test_the_control_channel(place: Path, redis_server: RedisServer) -> None:
    """The command lets streams with a client begin, and their clients be disconnected."""
    redis_cli = f"redis-cli -p {redis_server.port}"
    shell(f"{redis_cli} ACL SETUSER app on '>secret' '&news' +@all", place)
    app = Flask(__name__)
    app.config["REDIS_URL"] = redis_server.url.replace("://", "://app:secret@")

    @app.get("/")
    def events() -> Response:
        return streams.stream(["news"], client="alice")

    with app.app_context(), pytest.raises(NoPermissionError, match="flask-sse:control"):
        streams.disconnect(client="alice")
    shell(_ALLOW.replace("redis-cli", redis_cli), place)
    with open_stream(app, url="/") as stream, app.app_context():
        sse.publish("one", channel="news")
        assert stream.get().data == "one"
        assert streams.disconnect(client="alice") == 1
        with pytest.raises(EOFError):
            stream.get()
