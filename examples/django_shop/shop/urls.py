from django.db import transaction
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

import pgpubsub
from pgpubsub.contrib import sse
from pgpubsub.contrib.django import append, async_hub, hub, notify
from shop.models import Order


def change(request, id):
    """A synchronous view: what it sends goes out with the commit of its transaction, or never."""
    with transaction.atomic():
        order, _ = Order.objects.update_or_create(id=id, defaults={"state": request.POST["state"]})
        append("history", order.state, key=str(id))
        notify("mail", f"order {id} is {order.state}")
    return HttpResponse(status=204)


def next_mail(request):
    """A synchronous view that waits: all threads of a process share one connection that listens."""
    with hub().subscribe("mail") as mail:
        try:
            event = mail.get(timeout=20)
        except TimeoutError:
            return HttpResponse(status=204)
    return HttpResponse("read it all again" if isinstance(event, pgpubsub.Gap) else event.payload)


async def events(request):
    """An asynchronous view, below an ASGI server: server-sent events of all changes."""
    changes = async_hub().subscribe("orders")
    return StreamingHttpResponse(sse.follow(changes), content_type=sse.MEDIA_TYPE, headers=sse.HEADERS)


urlpatterns = [
    path("orders/<int:id>/", change),
    path("mail/", next_mail),
    path("events/", events),
]
