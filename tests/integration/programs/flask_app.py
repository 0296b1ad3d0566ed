"""Flask on its own threaded server, requests as the client, and redis-py in between: three libraries in one program."""

import logging
import threading

import flask
import redis
import requests
from measuring import ASKED, COUNT, main
from redis.backoff import NoBackoff
from redis.retry import Retry
from werkzeug.serving import make_server

app = flask.Flask(__name__)
logging.getLogger("werkzeug").setLevel(logging.ERROR)
store = redis.Redis(ASKED["host"], ASKED["port"], max_connections=COUNT + 1, retry=Retry(NoBackoff(), 0), protocol=2)


@app.get("/slow/<float:seconds>")
def slow(seconds):
    store.blpop("nothing", timeout=seconds)
    return {"path": flask.request.path}


@app.get("/quick")
def quick():
    return {"hits": store.incr("hits")}


@app.get("/waiting")
def waiting():
    return {"waiting": store.info("clients")["blocked_clients"]}


@app.errorhandler(redis.RedisError)
def unavailable(error):
    return {"error": str(error)}, 503


server = make_server("127.0.0.1", 0, app, threaded=True)
server.daemon_threads = True
server.socket.listen(COUNT)
threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
session = requests.Session()
session.mount("http://", requests.adapters.HTTPAdapter(pool_connections=1, pool_maxsize=COUNT + 1))
session.trust_env = False


def get(path):
    answer = session.get(f"http://127.0.0.1:{server.server_port}{path}")
    answer.raise_for_status()
    return answer.json()


def ask_slowly(seconds):
    path = f"/slow/{seconds:.3f}"
    assert get(path) == {"path": path}


main(
    slow=ask_slowly,
    quick=lambda: get("/quick"),
    in_flight=lambda: get("/waiting")["waiting"],
    errors=requests.RequestException,
)
server.shutdown()
