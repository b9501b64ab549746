"""Messages for several channels, and a page that shows them: uvicorn examples.litestar_sse:app"""

from litestar import Litestar, get, post
from litestar.params import FromPath, RawBody

from pgpubsub import AsyncHub
from pgpubsub.contrib.litestar import EventStream, HubDependency, HubPlugin

PAGE = """<!doctype html><title>news</title><pre id="log"></pre><script>
const log = (text) => document.getElementById("log").append(text + "\\n");
const source = new EventSource("/events");
source.onopen = () => log("listening: whatever is shown is to be read now");
source.addEventListener("gap", (event) => log("and again: " + JSON.parse(event.data).reason));
for (const channel of ["news", "weather"])
  source.addEventListener(channel, (event) => log(channel + ": " + event.data));
</script>"""


@get("/", media_type="text/html", sync_to_thread=False)
def page() -> str:
    return PAGE


@get("/events")
async def events(hub: HubDependency) -> EventStream:
    return EventStream(hub.subscribe("news", "weather"), named=True)


@post("/{channel:str}", status_code=204)
async def send(hub: HubDependency, channel: FromPath[str], body: RawBody) -> None:
    await hub.notify(channel, body.decode())


app = Litestar([page, events, send], plugins=[HubPlugin(AsyncHub("dbname=test user=postgres"))])
