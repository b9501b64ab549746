"""The gateway beside Django, in one process: uvicorn examples.gateway_django:application

Django sends, in its own transactions; whoever listens at /live/channels/news gets it.
"""

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from starlette.applications import Starlette
from starlette.routing import Mount

from pgpubsub.web import create_app

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="a secret of Django's own",
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "test", "USER": "postgres"}},
)


def say(request: HttpRequest) -> HttpResponse:
    from pgpubsub.contrib.django import notify  # which needs Django's settings

    notify("news", request.body.decode())
    return HttpResponse(status=204)


urlpatterns = [path("say", say)]

gateway = create_app("dbname=test user=postgres", public=["channels/news"])
application = Starlette(
    routes=[Mount("/live", gateway), Mount("/", get_asgi_application())], lifespan=gateway.router.lifespan_context
)
