"""The client's calls about models: imported, looked at, aliased, loaded, downloaded, deleted."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from resnetd.counted import Counted, ignore
from resnetd.download import save
from resnetd.errors import Unreachable
from resnetd.transport import Json, Transport, given, problem_of, segment

_LOAD_SECONDS = 30  # for which the server is asked to wait, again and again


class ModelCalls(Transport):
    """`if_match`: the aliases' ETag as they were seen; the change is refused (412) where they are others by now."""

    def models(self, *, limit: int | None = None, after: str | None = None) -> Json:
        """A page, by name."""
        return self._page("/v1/models", limit, after)

    def model(self, name: str) -> Json:
        return self._get(f"/v1/models/{segment(name)}")

    def import_model(
        self,
        file: str | Path,
        name: str,
        *,
        network: str | None = None,
        classes: Sequence[str] | None = None,
        preprocessing: Mapping[str, Any] | None = None,
        alias: str | None = None,
        priority: str | None = None,
        max_seconds: float | None = None,
        idempotency_key: str | None = None,
        on_bytes: Callable[[int], None] = ignore,
    ) -> Json:
        """Send a state dict (safetensors, .pth) or a bundle; the job that makes it a version of `name`.

        `priority` and `max_seconds` are as of `submit`. Sent again where that may help, under one Idempotency-Key:
        never two jobs. `on_bytes` gets each piece's size, and a negative one for what is sent again.
        """
        fields = given(
            {
                "name": name,
                "network": network,
                "classes": None if classes is None else json.dumps(list(classes)),
                "preprocessing": None if preprocessing is None else json.dumps(dict(preprocessing)),
                "alias": alias,
                "priority": priority,
                "max_seconds": max_seconds,
            }
        )
        headers = {"Idempotency-Key": idempotency_key or uuid4().hex}
        path = Path(file)
        with Counted(path, on_bytes) as content:
            files = {"file": (path.name, content)}
            answer = self._request("POST", "/v1/models", data=fields, files=files, headers=headers, repeat=True)
            return self._json(answer)

    def aliases(self, name: str) -> tuple[Json, str]:
        """A model's aliases, each with its canary, shadow and history; and their ETag."""
        answer = self._request("GET", f"/v1/models/{segment(name)}/aliases", repeat=True)
        return self._json(answer), answer.headers["ETag"]

    def alias(self, name: str, alias: str) -> tuple[Json, str]:
        """One alias as `aliases` has it; and the ETag of all of them."""
        answer = self._request("GET", _alias(name, alias), repeat=True)
        return self._json(answer), answer.headers["ETag"]

    def set_alias(
        self,
        name: str,
        alias: str,
        version: int,
        *,
        canary: tuple[int, float] | None = None,
        shadow: int | None = None,
        if_match: str | None = None,
    ) -> Json:
        """Point an alias to a version; it serves from then on, without a restart.

        `canary` is a version and the percentage of requests that it answers; `shadow` gets a copy of each
        classification of files.
        """
        body: Json = {"version": version}
        if canary is not None:
            body["canary"] = {"version": canary[0], "percent": canary[1]}
        if shadow is not None:
            body["shadow"] = {"version": shadow}
        headers = given({"If-Match": if_match})
        return self._json(
            self._request("PUT", _alias(name, alias), json=body, headers=headers, repeat=if_match is None)
        )

    def roll_back(self, name: str, alias: str, *, if_match: str | None = None) -> Json:
        """Point an alias to the version before this one."""
        headers = given({"If-Match": if_match})
        return self._json(self._request("POST", f"{_alias(name, alias)}:rollback", headers=headers))

    def delete_alias(self, name: str, alias: str, *, if_match: str | None = None) -> None:
        """A `production` that is deleted is the newest version again."""
        headers = given({"If-Match": if_match})
        self._request("DELETE", _alias(name, alias), headers=headers, repeat=if_match is None)

    def load_model(self, ref: str) -> Json:
        """Load a version and wait until it is ready."""
        path = f"/v1/models/{segment(ref)}:load"
        while True:
            query = {"wait": _LOAD_SECONDS}
            found = self._json(self._request("POST", path, params=query, repeat=True, wait=_LOAD_SECONDS))
            if found["state"] == "ready":
                return found

    def unload_model(self, ref: str) -> Json:
        return self._json(self._request("POST", f"/v1/models/{segment(ref)}:unload", repeat=True))

    def card(self, ref: str) -> str:
        """The model in words, as Markdown."""
        return self._request("GET", f"/v1/models/{segment(ref)}/card", repeat=True).text

    def labels(self, ref: str) -> Json:
        return self._get(f"/v1/models/{segment(ref)}/labels")

    def model_metrics(self, ref: str) -> Json:
        """What the version's evaluation gave."""
        return self._get(f"/v1/models/{segment(ref)}/metrics")

    def download_model(self, name: str, version: int, target: str | Path, *, form: str = "bundle") -> None:
        """Write a version as a `bundle` (zip) or its `weights` (safetensors) to `target`: whole, or not at all.

        The weights' SHA-256 is checked, and they go on where the connection breaks; the server makes a bundle anew
        for each request. Raises Refused where the weights are not those of the version.
        """
        target = Path(target)
        path = f"{_version(name, version)}/download"
        if form == "weights":
            save(self._http, self._weights(name, version, path), target, refuse=problem_of, on_bytes=ignore)
            return
        part = target.with_name(f".{target.name}.{uuid4().hex}.part")
        try:
            with part.open("wb") as file, self._http.stream("GET", path, params={"format": form}) as answer:
                if not answer.is_success:
                    answer.read()
                    raise problem_of(answer)
                for piece in answer.iter_bytes():
                    file.write(piece)
            part.replace(target)
        except httpx.TransportError as error:
            raise Unreachable(self.server, str(error) or type(error).__name__) from error
        finally:
            with suppress(FileNotFoundError):
                part.unlink()

    def _weights(self, name: str, version: int, path: str) -> Json:
        """The weights of a version as `save` wants a file described."""
        (found,) = self.model(f"{name}@{version}")["versions"]
        href = f"{path}?format=weights"
        head = self._request("HEAD", href, headers={"Accept-Encoding": "identity"}, repeat=True)
        size = int(head.headers["Content-Length"])
        return {"name": f"{name}@{version}", "bytes": size, "sha256": found["weights_sha256"], "href": href}

    def delete_version(self, name: str, version: int) -> None:
        """For good. Refused while an alias needs it or an engine has it."""
        self._request("DELETE", _version(name, version), repeat=True)


def _alias(name: str, alias: str) -> str:
    return f"/v1/models/{segment(name)}/aliases/{segment(alias)}"


def _version(name: str, version: int) -> str:
    return f"/v1/models/{segment(name)}/versions/{version}"
