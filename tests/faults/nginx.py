"""A private nginx in front of the application, as operators put one there."""

from pathlib import Path

from tests.services.ports import free_port
from tests.services.process import Process, listens
from tests.services.programs import find

_CONFIG = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream application {{ {servers} }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://application;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Connection "";
      {settings}
    }}
  }}
}}
"""


class Nginx:
    """Listens on 127.0.0.1 and passes on to these ports, in this order of preference; `stop` it in the end.

    `settings` are directives for the location: `proxy_buffering on; proxy_read_timeout 2s;`.
    """

    def __init__(self, folder: Path, *ports: int, settings: str = "") -> None:
        self.port = free_port()
        folder.mkdir()
        servers = [
            f"server 127.0.0.1:{port} max_fails=0{' backup' if place else ''};" for place, port in enumerate(ports)
        ]
        config = folder / "nginx.conf"
        text = _CONFIG.format(folder=folder, servers=" ".join(servers), port=self.port, settings=settings)
        config.write_text(text)
        argv: list[str | Path] = [find("nginx"), "-p", folder, "-e", folder / "start.log", "-c", config]
        self._process = Process(argv, log=folder / "output", ready=listens(self.port))

    @property
    def url(self) -> str:
        """Without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._process.kill()
