"""Long polling in a prefork server: gunicorn --preload --workers 2 --threads 8 examples.gunicorn_app:app"""

import pgpubsub

hub = pgpubsub.Hub("dbname=test user=postgres")  # connects when it is first used: in each worker, after the fork


def app(environ, start_response):
    channel = environ["PATH_INFO"].strip("/")
    if environ["REQUEST_METHOD"] == "POST":
        hub.notify(channel, environ["wsgi.input"].read().decode())
        start_response("204 No Content", [])
        return []
    with hub.subscribe(channel) as events:
        try:
            event = events.get(timeout=20)
        except TimeoutError:
            start_response("204 No Content", [])
            return []
    body = "read it all again" if isinstance(event, pgpubsub.Gap) else event.payload
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [body.encode()]
