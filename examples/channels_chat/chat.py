"""A chat with rooms, between all processes that serve it.

python chat.py   # once: the tables of the channel layer; in a project, the migration operation InstallChannelLayer
daphne chat:application
"""

import os

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.db import connection
from django.http import HttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF="chat",
    CHANNEL_LAYERS={"default": {"BACKEND": "pgpubsub.contrib.channels.PostgresChannelLayer"}},
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "test",
            "USER": "postgres",
            "HOST": os.environ.get("PGHOST", ""),
            "PORT": os.environ.get("PGPORT", ""),
            "PASSWORD": os.environ.get("PGPASSWORD", ""),
        }
    },
)
django.setup()

PAGE = """<!doctype html><title>A chat</title>
<ul id="lines"></ul><input autofocus onchange="socket.send(value); value = ''">
<script>
const socket = new WebSocket(`ws://${location.host}/ws${location.pathname}`);
socket.onmessage = ({data}) => {
  const line = document.createElement("li");
  line.textContent = data;
  lines.append(line);
};
</script>"""


class Chat(AsyncWebsocketConsumer):
    async def connect(self):
        self.room = self.scope["url_route"]["kwargs"]["room"]
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()

    async def disconnect(self, code):
        await self.channel_layer.group_discard(self.room, self.channel_name)

    async def receive(self, text_data=None, bytes_data=None):
        await self.channel_layer.group_send(self.room, {"type": "line", "text": text_data})

    async def line(self, message):
        await self.send(message["text"])


urlpatterns = [path("<slug:room>/", lambda request, room: HttpResponse(PAGE))]
application = ProtocolTypeRouter(
    {"http": get_asgi_application(), "websocket": URLRouter([path("ws/<slug:room>/", Chat.as_asgi())])}
)

if __name__ == "__main__":
    from pgpubsub.contrib.channels import install

    install(connection)
