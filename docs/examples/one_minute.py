"""A page that shows each greeting as soon as it is published."""

from flask import Flask

from flask_sse import sse

app = Flask(__name__)
app.config["REDIS_URL"] = "memory://"
app.register_blueprint(sse, url_prefix="/stream")

PAGE = """
<!doctype html>
<title>Greetings</title>
<ul id="greetings"></ul>
<script>
  const source = new EventSource("/stream");
  source.addEventListener("greeting", (event) => {
    const item = document.createElement("li");
    item.textContent = JSON.parse(event.data).message;
    document.getElementById("greetings").append(item);
  });
</script>
"""


@app.get("/")
def index() -> str:
    """Show the page."""
    return PAGE


@app.get("/hello")
def hello() -> str:
    """Greet everybody who has the page open."""
    sse.publish({"message": "Hello!"}, type="greeting")
    return "Message sent!"
