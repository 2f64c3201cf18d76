"""The site behind a2wsgi, for servers of ASGI applications."""

from a2wsgi import WSGIMiddleware

from tests.apps.site import app as site

# a2wsgi has types of its own for what typeshed has.
app = WSGIMiddleware(site)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
