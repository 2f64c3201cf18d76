"""A page that misses no events between being rendered and connecting."""

from flask import Flask, render_template_string, request

from flask_sse import history, sse

PAGE = """
<!doctype html>
<title>News</title>
<ul id="news">{% for item in news %}<li>{{ item }}</li>{% endfor %}</ul>
<script>
  const source = new EventSource({{ url_for("sse.stream", last_event_id=position) | tojson }});
  const list = document.getElementById("news");
  source.addEventListener("news", event => {
    const item = document.createElement("li");
    item.textContent = JSON.parse(event.data).text;
    list.append(item);
  });
  source.addEventListener("sse.reset", () => location.reload());
</script>
"""

news = ["Welcome!"]  # stands for your database


def create_app(redis_url: str) -> Flask:
    """Return the application."""
    app = Flask(__name__)
    app.config["REDIS_URL"] = redis_url
    app.config["SSE_HISTORY"] = 100
    app.register_blueprint(sse, url_prefix="/stream")

    @app.get("/")
    def index() -> str:
        # Get the position before the data: an event published in between may then be shown
        # twice. The other way round, it would be missed.
        position = history.position()
        return render_template_string(PAGE, news=news, position=position)

    @app.post("/news")
    def add_news() -> tuple[str, int]:
        text = request.form["text"]
        news.append(text)
        sse.publish({"text": text}, type="news")
        return "", 204

    return app
