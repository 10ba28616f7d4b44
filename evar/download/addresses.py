"""Files by http(s) address: mirrors, retries, resuming, and a hash at the end. The only file that opens a URL."""

from __future__ import annotations

import errno
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from evar.config.messages import progress_bar
from evar.download.checks import offline, sha256_of

ATTEMPTS = 4  # consecutive ones that bring no new byte; each mirror has its own
RETRY_SECONDS = 1.0  # first pause; it doubles
TIMEOUT_SECONDS = 30.0  # without a byte
BLOCK_BYTES = 1 << 18
#: a connection that brings less than this over that time has stalled
LEAST_BYTES_PER_SECOND, SLOW_SECONDS = 2048, 60.0
#: of a partial file that are fetched again and compared, so that a server cannot go on with another file
OVERLAP_BYTES = 4096

_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


class _Failed(Exception):
    """One attempt at one address failed; `again` says whether another attempt may help, after `wait` seconds."""

    def __init__(self, reason: str, again: bool = False, wait: float = 0.0) -> None:
        super().__init__(" ".join(reason.split()))
        self.again, self.wait = again, wait


def url(urls: str | Sequence[str], target: str | Path, sha256: str | None = None, size: int | None = None) -> Path:
    """Download a file once, resuming where an earlier attempt stopped; later calls only check it.

    Args:
        urls: http(s) address, or several of the same file, tried in order.
        target: path of the file to be; its folder is made. A partial download waits beside it as `NAME.part`.
        sha256: what the file must hash to. Where it is unknown, the hash of the first download is written to
            `NAME.sha256` and holds ever after; delete that record to accept another file.
        size: bytes, if known.

    Returns:
        `target`.

    Raises:
        ValueError: if an address is not http or https.
        OSError: if no address gives the file, or the file is another one; every address and its reason are named.

    Example:
        >>> url("file:///etc/hosts", "hosts")
        Traceback (most recent call last):
        ValueError: expected an http or https address without blanks, got 'file:///etc/hosts'; is it a local path?
    """
    addresses = (urls,) if isinstance(urls, str) else tuple(urls)
    if not addresses:
        raise ValueError(f"no address given for {target}; expected one or more http or https addresses")
    for address in addresses:
        if not re.fullmatch(r"https?://[!-~]+", address, re.IGNORECASE):  # visible ASCII, as HTTP wants it
            raise ValueError(f"expected an http or https address without blanks, got {address!r}; is it a local path?")
    target = Path(target).absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    record = target.with_name(target.name + ".sha256")
    with FileLock(f"{target}.lock"):
        expected = sha256.lower() if sha256 else _read_record(record)
        failures = []
        if target.is_file():
            found = sha256_of(target)
            if expected in (None, found):
                _record(record, found, target.name)
                return target
            failures.append(f"the file there has sha256 {found}, expected {expected}")
        if offline():
            failures.append(f"{offline()} forbids the network; it is at {addresses[0]}")
            raise OSError(_explain_failure(target, failures))
        for address in addresses:
            try:
                found = _fetch(address, target, expected, size)
            except _Failed as error:
                failures.append(f"{address}: {error}")
            else:
                _record(record, found, target.name)
                return target
    raise OSError(_explain_failure(target, failures))


def _explain_failure(target: Path, failures: list[str]) -> str:
    return f"cannot fetch {target.name} ({'; '.join(failures)}); get it by other means and save it as {target}"


def forget_hash(target: Path) -> None:
    """Take back the hash that was recorded when `target` came, since it turned out to be the wrong file."""
    target.with_name(target.name + ".sha256").unlink(missing_ok=True)


def _read_record(record: Path) -> str | None:
    """Read the hash in a `NAME.sha256`; None if there is no such file, or it is incomplete."""
    match = re.match(r"[0-9a-f]{64}\b", record.read_text(encoding="utf-8")) if record.is_file() else None
    return match.group() if match else None


def _record(record: Path, sha256: str, name: str) -> None:
    if _read_record(record) != sha256:
        record.write_text(f"{sha256}  {name}\n", encoding="utf-8")


def _fetch(address: str, target: Path, expected: str | None, size: int | None) -> str:
    """Fetch one address into `target`, with retries; returns the sha256."""
    part = target.with_name(target.name + ".part")
    failures, most = 0, part.stat().st_size if part.is_file() else 0
    while True:
        try:
            resumed = _request_part(address, part, expected, size)
            found = sha256_of(part)
            if expected in (None, found):
                os.replace(part, target)
                _forget(part)
                return found
            _forget(part)
            raise _Failed(f"its sha256 is {found}, expected {expected}", again=resumed)
        except _Failed as error:
            held = part.stat().st_size if part.is_file() else 0
            # A long file over a bad line may break off many times; only attempts that bring nothing new count.
            failures, most = (0, held) if held > most else (failures + 1, most)
            if not error.again or failures >= ATTEMPTS:
                raise
            time.sleep(max(error.wait, RETRY_SECONDS * 2 ** max(failures - 1, 0)))


def _request_part(address: str, part: Path, expected: str | None, size: int | None) -> bool:
    """One request that starts or continues `part`; returns whether it continued an earlier one."""
    offset, known = _resume_point(address, part, expected)
    # Compressed transfer would make offsets and lengths those of other bytes.
    headers = {"User-Agent": "evar", "Accept-Encoding": "identity"}
    overlap = min(offset, OVERLAP_BYTES)
    if offset:
        headers["Range"] = f"bytes={offset - overlap}-"
        if known.get("validator"):
            headers["If-Range"] = known["validator"]
    try:
        request = urllib.request.Request(address, headers=headers)
        with _make_opener().open(request, timeout=TIMEOUT_SECONDS) as response:
            if response.status == 206 and offset:
                match = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
                same = known.get("validator") in (None, _find_validator(response)) and match is not None
                same = same and known.get("total") in (None, int(match[2]) if match and match[2] != "*" else None)
                if not same or match is None or int(match[1]) != offset - overlap:
                    _forget(part)
                    raise _Failed("the file changed between two attempts", again=True)
                _require_same_bytes(response, part, offset, overlap)
            elif response.status == 200:
                offset = 0  # the server gives no ranges, or the file is another one by now
            else:
                raise _Failed(f"HTTP {response.status} {response.reason}")
            _receive(response, address, part, offset, size)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            _forget(part)
            raise _Failed("the partial file does not fit the server's", again=True) from error
        pause = error.headers.get("Retry-After", "") if error.headers else ""
        wait = min(float(pause), 60.0) if pause.isdigit() else 0.0
        raise _Failed(f"HTTP {error.code} {error.reason}", again=error.code in _TRANSIENT, wait=wait) from error
    except urllib.error.URLError as error:
        # An unknown host or a bad certificate stays so; a refused or reset connection may not.
        lasting = isinstance(error.reason, socket.gaierror | ssl.SSLCertVerificationError | str)
        raise _Failed(f"no connection, {error.reason}", again=not lasting) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _Failed(f"the disk of {part.parent} is full; free some space, then run the command again") from error
        if not isinstance(error, TimeoutError | ConnectionError | ssl.SSLError):
            raise
        raise _Failed(f"connection broke, {type(error).__name__}: {error}", again=True) from error
    except http.client.HTTPException as error:
        raise _Failed(f"connection broke, {type(error).__name__}: {error}", again=True) from error
    return offset > 0


def _require_same_bytes(response: Any, part: Path, offset: int, overlap: int) -> None:
    """Compare the bytes that a server sends again with the end of the partial file."""
    with part.open("rb") as file:
        file.seek(offset - overlap)
        held = file.read(overlap)
    sent = b""
    while len(sent) < overlap and (block := response.read1(overlap - len(sent))):
        sent += block
    if sent != held:
        _forget(part)
        raise _Failed("the server goes on with other bytes than it began with", again=True)


def _receive(response: Any, address: str, part: Path, offset: int, size: int | None) -> None:
    """Append the body to `part` from `offset` on and check its length."""
    length = response.headers.get("Content-Length", "")
    already = min(offset, OVERLAP_BYTES)  # was sent again
    total = offset - already + int(length) if length.isdigit() else None
    if size is not None and total not in (None, size):
        _forget(part)
        raise _Failed(f"it has {total} bytes, expected {size}")
    if response.headers.get_content_type() == "text/html" and ".htm" not in part.name:
        raise _Failed("it answers with a web page instead of the file")
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - offset > free:
        raise _Failed(f"it needs {(total - offset) / 1e6:.0f} MB, but the disk has {free / 1e6:.0f} MB left")
    if not offset:
        _forget(part)  # bytes of an older file must not survive beside the facts of this one
        facts = {"address": address, "validator": _find_validator(response), "total": total}
        part.with_name(part.name + ".json").write_text(json.dumps(facts), encoding="utf-8")
    bar = progress_bar(total=total, initial=offset, unit="B", unit_scale=True, desc=part.stem, leave=False)
    with part.open("ab" if offset else "wb") as file, bar:
        since, n_since = time.monotonic(), 0
        while block := response.read1(BLOCK_BYTES):
            file.write(block)
            bar.update(len(block))
            n_since += len(block)
            if (seconds := time.monotonic() - since) >= SLOW_SECONDS:
                if n_since < LEAST_BYTES_PER_SECOND * seconds:
                    raise _Failed(f"the connection stalled: {n_since} bytes in {seconds:.0f} s")
                since, n_since = time.monotonic(), 0
            if size is not None and file.tell() > size:
                break
        file.flush()
        os.fsync(file.fileno())
        received = file.tell()
    if total is not None and received < total:
        raise _Failed(f"connection closed after {received} of {total} bytes", again=True)
    if size is not None and received != size:
        _forget(part)
        raise _Failed(f"it has {received} bytes or more, expected {size}")


def _resume_point(address: str, part: Path, expected: str | None) -> tuple[int, dict[str, Any]]:
    """Return how many bytes of `part` to keep, and the known facts about the file that they came from."""
    if not part.is_file():
        return 0, {}
    try:
        known = json.loads(part.with_name(part.name + ".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    if known.get("address") == address and known.get("validator"):
        return part.stat().st_size, known
    # Another mirror, or a server that marks no versions: only a known hash can tell whether the halves fit.
    return (part.stat().st_size, {}) if expected else (0, {})


def _find_validator(response: Any) -> str | None:
    """Return a value for If-Range: a strong ETag, else the date of the last change."""
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_name(part.name + ".json").unlink(missing_ok=True)


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Redirects, but none from https to http: whoever is on the line could send another file."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Refuse a downgrade; else as urllib does."""
        if req.full_url.lower().startswith("https:") and not newurl.lower().startswith("https:"):
            raise _Failed(f"it redirects from https to {newurl.split('?')[0]}, which is not safe")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _make_opener() -> urllib.request.OpenerDirector:
    """As urllib's own, proxies from the environment included, but without the ftp, file and data schemes."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        _SafeRedirects,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener
