"""A real nginx, which needs only a folder of its own."""

import subprocess
from pathlib import Path
from typing import Final

from tests.support.processes import LOOPBACK, find_program
from tests.support.servers import ROOT

_CONFIGURATION: Final = """
daemon off;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 100; }}
http {{
    access_log off;
    client_body_temp_path body;
    fastcgi_temp_path fastcgi;
    proxy_temp_path proxy;
    scgi_temp_path scgi;
    uwsgi_temp_path uwsgi;
    {site}
}}
"""
_DOCUMENTED: Final = ROOT / "docs" / "examples" / "deployment" / "nginx.conf"
_HTTP2_SINCE: Final = (1, 25, 1)
"""The first version with the directive `http2`."""


def nginx(folder: Path, site: str) -> list[str]:
    """Return the command that serves with this part of a configuration.

    :param folder: Where it keeps its files.
    :param site: What the block `http` contains.
    """
    config = folder / "nginx.conf"
    config.write_text(_CONFIGURATION.format(site=site))
    return [find_program("nginx"), "-p", str(folder), "-c", str(config), "-e", "stderr"]


def documented_site(app_port: int, port: int, plain_port: int, certificates: Path) -> str:
    """Return the documentation's configuration with other ports and certificates.

    :param app_port: The port of the application.
    :param port: The port with TLS.
    :param plain_port: The port without.
    :param certificates: The folder with `fullchain.pem` and `privkey.pem`.
    """
    with_tls = f"listen {LOOPBACK}:{port} ssl;\n    http2 on;"
    if _version() < _HTTP2_SINCE:
        with_tls = f"listen {LOOPBACK}:{port} ssl http2;"
    replacements = {
        "127.0.0.1:8000": f"{LOOPBACK}:{app_port}",
        "listen 443 ssl;\n    http2 on;": with_tls,
        "listen 80;": f"listen {LOOPBACK}:{plain_port};",
        "/etc/ssl/example.org": str(certificates),
    }
    text = _DOCUMENTED.read_text()
    for old, new in replacements.items():
        assert old in text
        text = text.replace(old, new)
    return text


def _version() -> tuple[int, ...]:
    command = [find_program("nginx"), "-v"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    version = said.strip().rpartition("/")[2].split()[0]
    return tuple(int(part) for part in version.split("."))
