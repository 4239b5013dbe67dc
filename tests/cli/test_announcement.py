"""What `resnetd up` says when everything runs."""

import json

import pytest

from resnetd.announcement import announcement
from store.layout import Layout
from store.settings import Settings

ADDRESS = "http://127.0.0.1:8000"
PARTS = {
    "engine": {"ready": True, "reason": None, "model": "toy", "version": 3},
    "worker": {"ready": True, "reason": None},
}


def said(layout: Layout, *, address: str = ADDRESS, redis_server: str | None = None, parts=PARTS, **settings) -> str:
    given = Settings(data=layout.root, **settings)
    return announcement(address, given, layout, redis_server=redis_server, parts=parts)


def routes(layout: Layout, *engines: tuple[int, str, str]) -> None:
    table = [{"model": "toy", "version": v, "state": state, "device": device} for v, state, device in engines]
    layout.routes.write_text(json.dumps({"engines": table}))


def test_each_part_has_a_line(layout):
    routes(layout, (3, "draining", "cuda:1"), (2, "ready", "cpu"), (3, "ready", "cuda:0"))
    lines = said(layout, redis_server="/usr/bin/valkey-server", http_workers=2).splitlines()
    assert lines[1] == f"resnetd is ready at {ADDRESS}"
    assert lines[3:8] == [
        f"  data    {layout.root}",
        f"  Redis   embedded, /usr/bin/valkey-server on {layout.redis_socket}",
        f"  HTTP    2 processes on {ADDRESS}, docs at {ADDRESS}/docs",
        "  engine  serves toy@3 on cuda:0",
        "  worker  one, computes on cuda:0",
    ]


def test_a_part_that_is_not_there_yet_is_not_said_to_run(layout):
    parts = {**PARTS, "worker": {"ready": False, "reason": "no worker is connected"}}
    told = said(layout, parts=parts)  # and no routing table
    assert "serves toy@3\n" in told
    assert "  worker  one, computes on the same device; not ready yet (no worker is connected)\n" in told


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://resnetd:geheim@r:6379/0", "redis://r:6379/0"),
        ("redis://r:6379/0?password=geheim", "redis://r:6379/0"),
        ("unix://resnetd:geheim@/run/redis.sock", "unix:///run/redis.sock"),
    ],
)
def test_an_external_redis_is_named_without_its_password(layout, url, shown):
    told = said(layout, redis_url=url)
    assert f"  Redis   external, {shown}\n" in told
    assert "geheim" not in told


def test_where_a_key_is_needed_each_request_has_one(layout):
    def requests(**settings):
        return [line for line in said(layout, **settings).splitlines() if line.startswith("  curl ")]

    assert requests() == [
        f"  curl -T cat.jpg {ADDRESS}/v1/classify",
        f"  curl -T images.zip '{ADDRESS}/v1/datasets?name=mine'",
        f"  curl {ADDRESS}/v1/models",
    ]
    key = '-H "Authorization: Bearer $RESNETD_KEY" '
    assert requests(host="0.0.0.0") == [line.replace("curl ", f"curl {key}") for line in requests()]
    assert (
        requests(address="http://[::1]:80")[2] == "  curl 'http://[::1]:80/v1/models'"
    )  # a shell would look for files
