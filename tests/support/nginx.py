"""A real nginx as a peer: it answers at once, or when so many seconds have passed, over HTTP and over TLS."""

import socket
from pathlib import Path

from support import tls
from support.servers import Server, find, free_port, missing

_MODULES = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules")

_CONFIGURATION = """
load_module {echo};
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {host}:{port} backlog=1024;
        {secure}
        location = /quick {{ echo quick; }}
        location ~ ^/slow/([0-9.]+)$ {{ echo_sleep $1; echo slow; }}
        location = /status {{ stub_status; }}
    }}
}}
"""


class Nginx(Server):
    """`/quick`, `/slow/SECONDS`, `/status`; on `secure_port` the same over TLS, where there is an openssl."""

    def __init__(self) -> None:
        self.program = find("nginx", "nginx-light", "/usr/sbin", "/usr/local/sbin")
        modules = [Path(folder, "ngx_http_echo_module.so") for folder in _MODULES]
        self.echo = next((path for path in modules if path.exists()), None)
        if self.echo is None:
            missing("nginx's echo module is missing: install libnginx-mod-http-echo (on Debian .ci/debian.sh does)")
        super().__init__()
        self.secure_port = free_port()

    def command(self) -> list[str]:
        secure = ""
        if tls.OPENSSL is not None:
            certificate = tls.certificates().localhost
            secure = (
                f"listen {self.host}:{self.secure_port} ssl backlog=1024;"
                f"ssl_certificate {certificate}; ssl_certificate_key {certificate};"
            )
        (self.folder / "nginx.conf").write_text(
            _CONFIGURATION.format(echo=self.echo, folder=self.folder, host=self.host, port=self.port, secure=secure)
        )
        return [self.program, "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]

    def answers(self) -> bool:
        try:
            with socket.create_connection(self.address, 1.0) as probe:
                probe.sendall(b"GET /quick HTTP/1.0\r\n\r\n")
                return probe.recv(100).startswith(b"HTTP/1.1 200")
        except OSError:
            return False
