"""A chat in a FastAPI application that the gateway is mounted in: uvicorn examples.gateway_chat.chat:app

What is said is kept in a stream, so whoever comes back, or comes late, gets all of it. The application says who
somebody is; the gateway does the rest. It needs the streams' tables: pgpubsub stream install
"""

import secrets
import tempfile
import time
from pathlib import Path

import jwt
from fastapi import Body, FastAPI
from fastapi.responses import FileResponse

from pgpubsub.web import Keys, create_app

SECRET = secrets.token_hex(32)
file = Path(tempfile.mkdtemp()) / "secret"  # a real application has one that all its processes share
file.write_text(SECRET)

gateway = create_app("dbname=test user=postgres", keys=Keys(secret=file))

app = FastAPI(lifespan=gateway.router.lifespan_context)
app.mount("/live", gateway)


@app.post("/token")
def token(name: str = Body(embed=True, min_length=1, max_length=30)) -> str:
    """Who comes in by a name may read what is said, and say something, for an hour."""
    allowed = {"read": ["streams/chat"], "write": ["streams/chat"]}
    return jwt.encode({"sub": name, "exp": int(time.time()) + 3600, "pgpubsub": allowed}, SECRET, "HS256")


@app.get("/")
def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("chat.html"))
