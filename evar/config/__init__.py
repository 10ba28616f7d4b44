"""Configuration: YAML files become frozen dataclasses, and names become classes."""

from evar.config.encoder import EncoderConfig, WeightsSource, display_name, load_encoder_config, make_absolute
from evar.config.folders import cache_folder, find, names, search_folders, user_folder
from evar.config.grid import GridConfig, is_grid, load_grid_config
from evar.config.protocol import NORM_STATS, ProtocolConfig, is_tuning, load_protocol_config, probe_protocols
from evar.config.published import PublishedConfig, PublishedRow, load_published_config
from evar.config.reading import build, load_every, read

__all__ = [
    "NORM_STATS",
    "EncoderConfig",
    "GridConfig",
    "ProtocolConfig",
    "PublishedConfig",
    "PublishedRow",
    "WeightsSource",
    "build",
    "cache_folder",
    "display_name",
    "find",
    "is_grid",
    "is_tuning",
    "load_encoder_config",
    "load_every",
    "load_grid_config",
    "load_protocol_config",
    "load_published_config",
    "make_absolute",
    "names",
    "probe_protocols",
    "read",
    "search_folders",
    "user_folder",
]
