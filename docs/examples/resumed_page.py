"""A page that misses nothing between its rendering and its connection."""

from flask import Flask, render_template_string

from flask_sse import history, sse

PAGE = """
<!doctype html>
<title>News</title>
<ul id="news">{% for item in news %}<li>{{ item }}</li>{% endfor %}</ul>
<script>
  const source = new EventSource("{{ url_for('sse.stream', last_event_id=position) }}");
  const list = document.getElementById("news");
  source.addEventListener("news", event => {
    const item = document.createElement("li");
    item.textContent = JSON.parse(event.data).text;
    list.append(item);
  });
  source.addEventListener("sse.reset", () => location.reload());
</script>
"""

news = ["Welcome!"]


def create_app(redis_url: str) -> Flask:
    """Return the application."""
    app = Flask(__name__)
    app.config["REDIS_URL"] = redis_url
    app.config["SSE_HISTORY"] = 100
    app.register_blueprint(sse, url_prefix="/stream")

    @app.get("/")
    def index() -> str:
        # First the position, and then what the page shows: in the other order, what is
        # published in between would be missing.
        position = history.position()
        return render_template_string(PAGE, news=news, position=position)

    return app
