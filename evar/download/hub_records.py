"""Which version of a hub repository came at its first use: its commit and the hashes of its files hold ever after.

A branch of a hub moves, and so may a tag. Numbers must not change because of that, so what came first is recorded in
`hub/` of the cache folder, and later uses ask for the same commit and compare the files. Deleting the record accepts the
version that is there by then.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evar.config.folders import cache_folder
from evar.config.messages import warn
from evar.download.checks import sha256_of


@dataclass(frozen=True)
class HubRecord:
    """The recorded facts about a repository at a revision.

    Attributes:
        repo: "organisation/name".
        revision: that was requested; None for the newest version.
    """

    repo: str
    revision: str | None

    @property
    def path(self) -> Path:
        """Of the record; the hash keeps names apart that look alike as file names."""
        name = f"{self.repo}@{self.revision or 'newest'}"
        place = hashlib.sha256(name.encode()).hexdigest()[:8]
        return cache_folder() / "hub" / f"{re.sub('[^A-Za-z0-9.@-]', '_', name)}-{place}.json"

    def read(self) -> dict[str, Any]:
        """Read the record: "commit", and the hashes of "files" by name; empty if there is none, or it is damaged."""
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            is_sound = isinstance(found["commit"], str) and all(isinstance(one, str) for one in found["files"].values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
            return {}
        return found if is_sound else {}

    def choose_revision(self) -> str | None:
        """Return the commit of the first use, or the requested revision at the first use."""
        return self.read().get("commit") or self.revision

    def explain(self) -> str:
        """Say where the commit of the first use comes from, for the end of an error; "" at the first use."""
        commit = self.read().get("commit")
        return (
            f"; {self.path} asks for the commit {commit} of its first use, delete it to take another" if commit else ""
        )

    def check(self, files: Mapping[str, Path]) -> None:
        """Compare files with those of the first use, and record new ones.

        Args:
            files: name in the repository -> the file here. Those that are absent are passed over.

        Raises:
            OSError: if a file is another one than at its first use.
        """
        known = self.read()
        hashes: dict[str, str] = dict(known.get("files", {}))
        commit = known.get("commit", "")
        for name, path in files.items():
            if not path.is_file():
                continue
            found = sha256_of(path)
            if hashes.setdefault(name, found) != found:
                raise OSError(
                    f"{name} of {self.repo} has sha256 {found}, but at its first use it had {hashes[name]}; was it changed "
                    f"or damaged? Delete {path} to fetch it again, or {self.path} to accept it"
                )
            commit = commit or find_commit(path)
        if hashes != known.get("files", {}) or commit != known.get("commit", ""):
            self._write({"repo": self.repo, "revision": self.revision, "commit": commit, "files": hashes})

    def _write(self, record: Mapping[str, Any]) -> None:
        part = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            os.replace(part, self.path)
        except OSError as error:
            warn(f"the version of {self.repo} cannot be recorded ({error}); a later run may get another one")
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)


def find_commit(path: Path) -> str:
    """Read the commit from a path in the hub's cache, which is .../snapshots/COMMIT/FILE; "" elsewhere.

    Example:
        >>> find_commit(Path("hub/models--org--name/snapshots/c0ffee/model.safetensors"))
        'c0ffee'
    """
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-2] else ""
