"""The site behind bridges that Flask-SSE does not recommend, for servers of ASGI applications."""

import warnings

from asgiref.wsgi import WsgiToAsgi

from tests.apps.site import app as site

with warnings.catch_warnings(action="ignore"):
    # Starlette itself recommends a2wsgi.
    from starlette.middleware.wsgi import WSGIMiddleware

# asgiref has no types for this.
behind_asgiref = WsgiToAsgi(site)  # type: ignore[no-untyped-call]
behind_starlette = WSGIMiddleware(site)
