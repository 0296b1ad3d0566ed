"""The program: see the package's text. `python app.py SERVICE REDIS_PORT CONNECTIONS` prints the port that it serves."""

import logging
import resource
import sys
from typing import Any

import flask
import redis
import requests
from werkzeug.serving import make_server

SERVICE, REDIS_PORT, CONNECTIONS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

app = flask.Flask(__name__)
store = redis.Redis(port=REDIS_PORT, max_connections=CONNECTIONS, protocol=2)
session = requests.Session()
session.trust_env = False
session.mount("http://", requests.adapters.HTTPAdapter(pool_connections=1, pool_maxsize=CONNECTIONS))


@app.get("/")
def page() -> dict[str, Any]:
    answer = session.get(SERVICE)
    answer.raise_for_status()
    return {"hits": store.incr("hits"), "service": answer.text}


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    server.socket.listen(CONNECTIONS)
    print(server.server_port, flush=True)
    server.serve_forever()
