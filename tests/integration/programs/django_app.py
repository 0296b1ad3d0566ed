"""Django: WSGI on its own threaded server, and its ORM on PostgreSQL, with a connection for each request.

The client is urllib.request.
"""

import json
import threading
import urllib.request

import django
from django.conf import settings
from measuring import ASKED, main

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF="__main__",
    SECRET_KEY="not one",
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": ASKED["host"],
            "PORT": ASKED["port"],
            "NAME": "postgres",
            "USER": "fibers",
            "OPTIONS": {"sslmode": "disable"},
        }
    },
    LOGGING_CONFIG=None,
)
django.setup()

from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.core.wsgi import get_wsgi_application
from django.db import DatabaseError, connection, models
from django.http import JsonResponse
from django.urls import path


class Visit(models.Model):
    where = models.TextField()

    class Meta:
        app_label = "visits"


class PgSleep(models.Func):
    function = "pg_sleep"
    output_field = models.TextField()


def answered(view):
    def guarded(request, **arguments):
        try:
            return JsonResponse(view(request, **arguments))
        except DatabaseError as error:
            return JsonResponse({"error": str(error)}, status=503)

    return guarded


def slow(request, seconds):
    visit = Visit.objects.annotate(slept=PgSleep(models.Value(float(seconds)))).order_by("id").first()
    return {"where": visit.where}


def quick(request):
    return {"visits": Visit.objects.count()}


def waiting(request):
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        return {"waiting": cursor.fetchone()[0]}


urlpatterns = [
    path("slow/<str:seconds>", answered(slow)),
    path("quick", answered(quick)),
    path("waiting", answered(waiting)),
]

with connection.schema_editor() as editor:
    editor.execute(f"DROP TABLE IF EXISTS {Visit._meta.db_table}")
    editor.create_model(Visit)
Visit.objects.create(where="here")
connection.close()


class Quiet(WSGIRequestHandler):
    def log_message(self, *words):
        pass


class Server(ThreadedWSGIServer):
    request_queue_size = 512


server = Server(("127.0.0.1", 0), Quiet)
server.set_app(get_wsgi_application())
threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()


def get(path):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/{path}") as answer:
        return answer.read().decode()


def ask_slowly(seconds):
    assert get(f"slow/{seconds}") == '{"where": "here"}'


main(
    slow=ask_slowly,
    quick=lambda: get("quick"),
    in_flight=lambda: json.loads(get("waiting"))["waiting"],
    errors=OSError,
)
server.shutdown()
