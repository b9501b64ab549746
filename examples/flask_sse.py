"""Channels in threads: gunicorn --preload --workers 2 --threads 20 examples.flask_sse:app"""

from flask import Flask, Response, request

from pgpubsub.contrib.flask import EventStream, PgPubSub

app = Flask(__name__)
pubsub = PgPubSub(app, "dbname=test user=postgres")


@app.get("/<channel>")
def events(channel: str) -> Response:
    return EventStream(pubsub.hub.subscribe(channel), keep_alive=2)


@app.post("/<channel>")
def send(channel: str) -> tuple[str, int]:
    pubsub.hub.notify(channel, request.get_data(as_text=True))
    return "", 204
