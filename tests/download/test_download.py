"""Downloads by address, against a server in a thread that can be told to misbehave, and files of the hub."""

from __future__ import annotations

import hashlib
import http.server
import json
import multiprocessing
import random
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from evar import download
from evar.download import addresses

CONTENT = random.Random(0).randbytes(700_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = random.Random(1).randbytes(700_000)


@dataclass
class Server:
    """What the local server serves and how, and what it was asked."""

    address: str = ""
    content: bytes = CONTENT
    ranges: bool = True
    etag: bool = True
    if_range: bool = True
    content_type: str = "application/octet-stream"
    cut: list[int] = field(default_factory=list)  # body bytes after which the next answers break off
    status: list[int] = field(default_factory=list)  # of the next answers
    seen: list[dict[str, str]] = field(default_factory=list)

    def path(self, path: str) -> str:
        return f"{self.address}/{path}"


def _handler(server: Server) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.seen.append({"path": self.path, **{key.lower(): value for key, value in self.headers.items()}})
            if self.path.startswith("/redirect?"):
                return self._answer(302, {"Location": self.path.partition("?")[2]}, b"")
            if self.path.startswith("/nothing"):
                return self._answer(404, {}, b"no such file")
            if server.status:
                return self._answer(server.status.pop(0), {}, b"busy")
            tag = f'"{hashlib.md5(server.content).hexdigest()}"'
            headers = {"Content-Type": server.content_type, **({"ETag": tag} if server.etag else {})}
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            fresh = not server.if_range or self.headers.get("If-Range", tag) == tag
            if start and server.ranges and fresh:
                if start >= len(server.content):
                    return self._answer(416, {}, b"")
                total = len(server.content)
                headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
                return self._answer(206, headers, server.content[start:])
            return self._answer(200, headers, server.content)

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body[: server.cut.pop(0)] if server.cut and status in (200, 206) else body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("EVAR_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(addresses, "RETRY_SECONDS", 0.0)
    state = Server()
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    running.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that hang up are meant to
    state.address = f"http://127.0.0.1:{running.server_port}"
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield state
    running.shutdown()
    running.server_close()


def _leftovers(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.glob("*.part*"))


def test_fetches_once_and_then_only_checks(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model.pth"
    for _ in range(2):
        assert download.url(server.path("model.pth"), target, SHA256, len(CONTENT)) == target
    assert target.read_bytes() == CONTENT
    assert len(server.seen) == 1
    assert _leftovers(target) == []


def test_resumes_where_the_connection_broke(server: Server, tmp_path: Path) -> None:
    server.cut = [300_000, 100_000]
    download.url(server.path("model.pth"), tmp_path / "model.pth")
    assert (tmp_path / "model.pth").read_bytes() == CONTENT
    assert [seen.get("range") for seen in server.seen] == [
        None,
        f"bytes={300_000 - addresses.OVERLAP_BYTES}-",
        f"bytes={400_000 - 2 * addresses.OVERLAP_BYTES}-",
    ]
    assert server.seen[1]["if-range"].startswith('"')


def test_resumes_in_a_later_call(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "ATTEMPTS", 1)
    server.cut, server.status = [300_000], []
    monkeypatch.setattr(addresses.time, "sleep", lambda _: server.status.append(503))
    with pytest.raises(OSError, match="HTTP 503"):
        download.url(server.path("model.pth"), tmp_path / "model.pth")
    assert not (tmp_path / "model.pth").exists()
    download.url(server.path("model.pth"), tmp_path / "model.pth")
    assert server.seen[-1]["range"] == f"bytes={300_000 - addresses.OVERLAP_BYTES}-"
    assert (tmp_path / "model.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("etag", [True, False])
def test_server_without_ranges_starts_over(server: Server, tmp_path: Path, etag: bool) -> None:
    server.cut, server.ranges, server.etag = [300_000], False, etag
    download.url(server.path("model.pth"), tmp_path / "model.pth", SHA256)
    assert (tmp_path / "model.pth").read_bytes() == CONTENT
    assert "range" in server.seen[1]


def test_without_hash_and_version_nothing_is_resumed(server: Server, tmp_path: Path) -> None:
    server.cut, server.etag = [300_000], False
    download.url(server.path("model.pth"), tmp_path / "model.pth")
    assert "range" not in server.seen[1]
    assert (tmp_path / "model.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("sha256", [None, hashlib.sha256(OTHER).hexdigest()])
def test_file_that_changes_between_attempts_is_not_mixed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sha256: str | None
) -> None:
    server.cut = [300_000]
    monkeypatch.setattr(addresses.time, "sleep", lambda _: setattr(server, "content", OTHER))
    download.url(server.path("model.pth"), tmp_path / "model.pth", sha256)
    assert (tmp_path / "model.pth").read_bytes() == OTHER


def test_changed_file_is_seen_where_the_server_ignores_if_range(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The partial content then carries another ETag than the first half."""
    server.cut, server.if_range = [300_000], False
    monkeypatch.setattr(addresses.time, "sleep", lambda _: setattr(server, "content", OTHER))
    download.url(server.path("model.pth"), tmp_path / "model.pth")
    assert [seen.get("range") for seen in server.seen] == [None, f"bytes={300_000 - addresses.OVERLAP_BYTES}-", None]
    assert (tmp_path / "model.pth").read_bytes() == OTHER


def test_partial_file_longer_than_the_servers_starts_over(server: Server, tmp_path: Path) -> None:
    (tmp_path / "model.pth.part").write_bytes(b"x" * (len(CONTENT) + 5))
    download.url(server.path("model.pth"), tmp_path / "model.pth", SHA256)
    assert (tmp_path / "model.pth").read_bytes() == CONTENT


def test_foreign_partial_file_is_dropped_by_its_hash(server: Server, tmp_path: Path) -> None:
    (tmp_path / "model.pth.part").write_bytes(b"x" * 10_000)
    download.url(server.path("model.pth"), tmp_path / "model.pth", SHA256)
    assert [seen.get("range") for seen in server.seen] == [f"bytes={10_000 - addresses.OVERLAP_BYTES}-", None]
    assert (tmp_path / "model.pth").read_bytes() == CONTENT


def test_wrong_hash_names_both_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=f"its sha256 is {SHA256}, expected {'0' * 64}"):
        download.url(server.path("model.pth"), tmp_path / "model.pth", "0" * 64)
    assert not (tmp_path / "model.pth").exists()
    assert _leftovers(tmp_path / "model.pth") == []
    assert len(server.seen) == 1


def test_wrong_size_is_refused_before_the_transfer(server: Server, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="it has 700000 bytes, expected 5"):
        download.url(server.path("model.pth"), tmp_path / "model.pth", size=5)
    assert not (tmp_path / "model.pth").exists()


def test_unknown_hash_is_recorded_and_holds(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "model.pth"
    download.url(server.path("model.pth"), target)
    assert (tmp_path / "model.pth.sha256").read_text().startswith(SHA256)
    target.write_bytes(CONTENT[:-1] + b"!")  # damaged on disk: fetched again
    download.url(server.path("model.pth"), target)
    assert target.read_bytes() == CONTENT
    target.unlink()
    server.content = OTHER  # another file under the same address: refused
    with pytest.raises(OSError, match=f"expected {SHA256}"):
        download.url(server.path("model.pth"), target)
    assert not target.exists()


def test_next_mirror_after_404(server: Server, tmp_path: Path) -> None:
    urls = [server.path("nothing/model.pth"), server.path("model.pth")]
    assert download.url(urls, tmp_path / "model.pth", SHA256).read_bytes() == CONTENT
    assert [seen["path"] for seen in server.seen] == ["/nothing/model.pth", "/model.pth"]


def test_next_mirror_after_wrong_hash(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = addresses._fetch

    def second_is_right(address: str, *rest: object) -> str:
        server.content = CONTENT if address.endswith("two") else OTHER
        return fetch(address, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(addresses, "_fetch", second_is_right)
    download.url([server.path("one"), server.path("two")], tmp_path / "model.pth", SHA256)
    assert (tmp_path / "model.pth").read_bytes() == CONTENT


def test_all_mirrors_fail_with_every_reason_and_the_place(server: Server, tmp_path: Path) -> None:
    urls = [server.path("nothing/a"), server.path("nothing/b")]
    with pytest.raises(OSError, match=r"cannot fetch model\.pth") as caught:
        download.url(urls, tmp_path / "model.pth")
    message = str(caught.value)
    assert message.count("HTTP 404 Not Found") == 2 and urls[0] in message and urls[1] in message
    assert str(tmp_path / "model.pth") in message and "\n" not in message
    assert len(server.seen) == 2  # a missing file is not asked for again


def test_redirect_keeps_the_range(server: Server, tmp_path: Path) -> None:
    server.cut = [300_000]
    download.url(server.path("redirect?/model.pth"), tmp_path / "model.pth", SHA256)
    assert (tmp_path / "model.pth").read_bytes() == CONTENT
    assert (
        server.seen[-1]["path"] == "/model.pth"
        and server.seen[-1]["range"] == f"bytes={300_000 - addresses.OVERLAP_BYTES}-"
    )


@pytest.mark.parametrize("place", ["file:///etc/hosts", "ftp://127.0.0.1/x"])
def test_redirect_to_another_scheme_is_refused(server: Server, tmp_path: Path, place: str) -> None:
    with pytest.raises(OSError, match="cannot fetch"):
        download.url(server.path(f"redirect?{place}"), tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("address", ["file:///etc/hosts", "ftp://host/x", "model.pth", "http://", "http://a b/x"])
def test_other_schemes_are_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(ValueError, match="expected an http or https address"):
        download.url(address, tmp_path / "x")
    with pytest.raises(ValueError, match="no address given"):
        download.url([], tmp_path / "x")


def test_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.status = [503, 429, 500]
    download.url(server.path("model.pth"), tmp_path / "model.pth", SHA256)
    assert len(server.seen) == 4


def test_server_that_stays_busy_is_given_up(server: Server, tmp_path: Path) -> None:
    server.status = [503] * 20
    with pytest.raises(OSError, match="HTTP 503"):
        download.url(server.path("model.pth"), tmp_path / "model.pth", SHA256)
    assert len(server.seen) == addresses.ATTEMPTS


def test_body_that_always_breaks_off_is_given_up(server: Server, tmp_path: Path) -> None:
    server.cut, server.ranges = [1000] * 50, False
    with pytest.raises(OSError, match="connection closed after 1000 of 700000 bytes"):
        download.url(server.path("model.pth"), tmp_path / "model.pth")
    assert not (tmp_path / "model.pth").exists()


def test_silent_server_times_out(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(addresses, "ATTEMPTS", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        with pytest.raises(OSError, match=r"connection broke, TimeoutError|no connection, .*timed out"):
            download.url(address, tmp_path / "x")


def test_web_page_in_place_of_a_file(server: Server, tmp_path: Path) -> None:
    server.content, server.content_type = b"<html>please log in</html>", "text/html; charset=utf-8"
    with pytest.raises(OSError, match="web page instead of the file"):
        download.url(server.path("model.pth"), tmp_path / "model.pth")
    assert not (tmp_path / "model.pth").exists()


def test_full_disk_is_named_before_the_transfer(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(OSError, match="the disk has 0 MB left"):
        download.url(server.path("model.pth"), tmp_path / "model.pth")


@pytest.mark.parametrize("switch", ["EVAR_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_asks_nobody(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: str) -> None:
    monkeypatch.setenv(switch, "1")
    with pytest.raises(OSError, match=f"{switch} forbids the network") as caught:
        download.url(server.path("model.pth"), tmp_path / "model.pth", SHA256)
    assert server.path("model.pth") in str(caught.value) and str(tmp_path / "model.pth") in str(caught.value)
    (tmp_path / "model.pth").write_bytes(CONTENT)  # put there by hand, as the message says
    download.url(server.path("model.pth"), tmp_path / "model.pth", SHA256)
    (tmp_path / "model.pth").write_bytes(OTHER)
    with pytest.raises(OSError, match=f"expected {SHA256}"):
        download.url(server.path("model.pth"), tmp_path / "model.pth", SHA256)
    assert server.seen == []


def _download_in_process(address: str, target: Path) -> None:
    download.url(address, target, SHA256)


def test_two_processes_fetch_once(server: Server, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    arguments = (server.path("model.pth"), tmp_path / "model.pth")
    processes = [spawn.Process(target=_download_in_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(server.seen) == 1
    assert (tmp_path / "model.pth").read_bytes() == CONTENT


@pytest.fixture
def hub_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[object], list[dict[str, object]]]:
    """A stand-in for the hub's client that records what it is asked, and answers or raises what it is given."""
    pytest.importorskip("huggingface_hub")
    import huggingface_hub

    monkeypatch.setenv("EVAR_CACHE", str(tmp_path / "cache"))
    for name in ("EVAR_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)

    def prepare(answer: object) -> list[dict[str, object]]:
        calls: list[dict[str, object]] = []

        def hf_hub_download(repo_id: str, filename: str, **options: object) -> str:
            calls.append({"repo": repo_id, "file": filename, **options})
            if isinstance(answer, Exception):
                raise answer
            return str(answer)

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
        return calls

    return prepare


def test_hub_passes_repository_file_and_revision(
    hub_calls: Callable[[object], list[dict[str, object]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = hub_calls("/somewhere/model.safetensors")
    assert download.hub("org/name", "model.safetensors", "abc") == Path("/somewhere/model.safetensors")
    monkeypatch.setenv("EVAR_OFFLINE", "1")
    download.hub("org/name", "model.safetensors")
    assert calls[0] == {"repo": "org/name", "file": "model.safetensors", "revision": "abc", "local_files_only": False}
    assert calls[1]["local_files_only"] is True


def test_a_hub_file_stays_the_one_of_its_first_use(
    hub_calls: Callable[[object], list[dict[str, object]]], tmp_path: Path
) -> None:
    """The branch moves, and the file changes in place: neither may change a number without a word."""
    first = tmp_path / "hub" / "snapshots" / "c0ffee" / "model.safetensors"
    first.parent.mkdir(parents=True)
    first.write_bytes(b"numbers")
    calls = hub_calls(first)
    for _ in range(2):
        assert download.hub("org/name", "model.safetensors") == first
    assert [call["revision"] for call in calls] == [None, "c0ffee"]
    first.write_bytes(b"other numbers")
    with pytest.raises(OSError, match=r"model\.safetensors of org/name has sha256 \w+, but at its first use") as caught:
        download.hub("org/name", "model.safetensors")
    hub_calls(RuntimeError("no such commit"))
    with pytest.raises(OSError, match=r"asks for the commit c0ffee of its first use, delete it to take another"):
        download.hub("org/name", "model.safetensors")
    (record,) = (tmp_path / "cache" / "hub").iterdir()
    assert str(record) in str(caught.value)
    record.write_text('{"commit": 3')  # damaged: as at the first use
    hub_calls(first)
    assert download.hub("org/name", "model.safetensors") == first
    assert json.loads(record.read_text())["commit"] == "c0ffee"


def test_hub_errors_are_one_sentence(hub_calls: Callable[[object], list[dict[str, object]]]) -> None:
    hub_calls(RuntimeError("first line\nsecond line"))
    with pytest.raises(OSError, match=r"cannot fetch x of org/name at abc .*\(first line second line\)"):
        download.hub("org/name", "x", "abc")


def test_hub_offline_without_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match=r"cannot fetch model\.safetensors of no-such-org/none"):
        download.hub("no-such-org/none", "model.safetensors")


def test_hub_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match="pip install 'huggingface-hub>=1'"):
        download.hub("org/name", "model.safetensors")


def test_hub_reads_a_local_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    assert download.hub(str(tmp_path), "model.safetensors") == tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError, match=r"has no other\.bin"):
        download.hub(str(tmp_path), "other.bin")


def test_a_server_that_goes_on_with_other_bytes_is_found_out(server: Server, tmp_path: Path) -> None:
    """No hash is known, and the server says that the file is the same one: its bytes tell that it is not."""
    server.cut = [300_000]
    download.url(server.path("model.pth"), tmp_path / "whole.pth")
    assert (tmp_path / "whole.pth").read_bytes() == CONTENT
    part = tmp_path / "model.pth.part"
    part.write_bytes(b"x" * 300_000)
    facts = {"address": server.path("model.pth"), "validator": server_validator(server), "total": len(CONTENT)}
    part.with_name(part.name + ".json").write_text(json.dumps(facts))
    download.url(server.path("model.pth"), tmp_path / "model.pth")
    assert (tmp_path / "model.pth").read_bytes() == CONTENT


def server_validator(server: Server) -> str:
    return next(seen["if-range"] for seen in server.seen if "if-range" in seen)


def test_https_is_never_left_for_http():
    handler = addresses._SafeRedirects()
    request = addresses.urllib.request.Request("https://example.org/a.zip")
    with pytest.raises(addresses._Failed, match="redirects from https to http://example.org/b.zip, which is not safe"):
        handler.redirect_request(request, None, 302, "Found", {}, "http://example.org/b.zip?key=1")
    assert handler.redirect_request(request, None, 302, "Found", {}, "https://example.org/b.zip") is not None


def test_a_stalled_connection_is_given_up(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "LEAST_BYTES_PER_SECOND", 1e12)
    monkeypatch.setattr(addresses, "SLOW_SECONDS", 0.0)
    with pytest.raises(OSError, match="the connection stalled"):
        download.url(server.path("model.pth"), tmp_path / "model.pth")
