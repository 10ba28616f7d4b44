"""The half of a CLAP model that reads: tokens by the checkpoint's own tokenizer, a language network, a projection.

It is built at its first use, so that evaluations of sound alone never pay for it. Networks are those of `transformers`;
tensors come from the checkpoint by `read_checkpoint`, tokenizer files from beside the checkpoint, and nothing is fetched.

An untrained encoder ("random") has no tokenizer; it then reads bytes. That is enough to try a pipeline, and its scores are
marked like those of every untrained network.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from evar import download
from evar.encoders._transformers import load_transformers
from evar.encoders.base import Encoder
from evar.encoders.weights import load_strict

RANDOM_SEED = 0
AT_ONCE = 32  # texts that share a forward
BYTES = "bytes"  # in the place of the hash of a tokenizer
HEAD_WIDTH = 64  # of all these networks; a checkpoint does not hold the number of heads


@dataclass(frozen=True)
class Language:
    """A kind of language network.

    Attributes:
        name: `model_type` of transformers.
        network, settings, tokenizer: names of its classes there.
        files: what its tokenizer consists of: one of these sets of files.
        published_as: the hub's repository that the tokenizer comes from.
        ignored: tensors of a checkpoint that are formulas or play no part.
    """

    name: str
    network: str
    settings: str
    tokenizer: str
    files: tuple[tuple[str, ...], ...]
    published_as: str
    ignored: tuple[str, ...] = ()


_TABLES = ("embeddings.position_ids", "embeddings.token_type_ids")  # formulas that older versions of transformers save
_BPE = (("tokenizer.json",), ("vocab.json", "merges.txt"))
ROBERTA = Language("roberta", "RobertaModel", "RobertaConfig", "RobertaTokenizer", _BPE, "roberta-base", _TABLES)
GPT2 = Language("gpt2", "GPT2Model", "GPT2Config", "GPT2Tokenizer", _BPE, "gpt2", ("*.attn.bias", "*.attn.masked_bias"))
BERT = Language(
    *("bert", "BertModel", "BertConfig", "BertTokenizer", (("tokenizer.json",), ("vocab.txt",)), "bert-base-uncased"),
    _TABLES,
)


def describe_network(language: Language, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the sizes of a language network off its tensors.

    Args:
        language: its kind.
        state: tensor name, as transformers has it -> tensor.

    Returns:
        Arguments of its settings class.

    Raises:
        ValueError: if the tensors with these sizes are missing.

    Example:
        >>> state = {"wte.weight": torch.zeros(9, 64), "wpe.weight": torch.zeros(77, 64), "h.0.ln_1.bias": torch.zeros(64)}
        >>> describe_network(GPT2, state)
        {'vocab_size': 9, 'n_positions': 77, 'n_embd': 64, 'n_layer': 1, 'n_head': 1}
    """
    is_gpt2 = language.name == "gpt2"
    blocks = "h." if is_gpt2 else "encoder.layer."
    words, places = (
        ("wte.weight", "wpe.weight")
        if is_gpt2
        else ("embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight")
    )
    numbers = {int(name.removeprefix(blocks).split(".")[0]) for name in state if name.startswith(blocks)}
    if words not in state or places not in state or not numbers:
        raise ValueError(f"the checkpoint's text half lacks {words}, {places} or {blocks}0; is it a {language.name}?")
    n_words, width = state[words].shape
    n_places, n_heads = len(state[places]), max(1, width // HEAD_WIDTH)
    if is_gpt2:
        return {
            "vocab_size": n_words,
            "n_positions": n_places,
            "n_embd": width,
            "n_layer": len(numbers),
            "n_head": n_heads,
        }
    return {
        "vocab_size": n_words,
        "hidden_size": width,
        "num_hidden_layers": len(numbers),
        "num_attention_heads": n_heads,
        "intermediate_size": len(state["encoder.layer.0.intermediate.dense.weight"]),
        "max_position_embeddings": n_places,
        "type_vocab_size": len(state["embeddings.token_type_embeddings.weight"]),
        **({"pad_token_id": 1, "layer_norm_eps": 1e-5} if language.name == "roberta" else {}),
    }


#: sizes of the published networks, for untrained ones
PUBLISHED: dict[str, dict[str, Any]] = {
    "roberta": {
        "vocab_size": 50265,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "pad_token_id": 1,
        "layer_norm_eps": 1e-5,
    },
    "gpt2": {},  # the defaults of transformers are the published sizes, and so they are for BERT
    "bert": {},
}


class Tokenizer:
    """Texts to tokens, as the authors of a CLAP model do it.

    Args:
        language: whose tokenizer.
        folder: that holds its files; None: bytes, for untrained networks.
        longest: tokens of a text, at most.
        ending: text that is put behind every text.
        padding: token that fills up; None for the tokenizer's own.

    Attributes:
        sha256: of the tokenizer's files.
    """

    def __init__(
        self, language: Language, folder: Path | None, longest: int, *, ending: str = "", padding: int | None = None
    ) -> None:
        self.longest, self.ending = longest, ending
        self._read: Any = None
        self.sha256 = BYTES
        self.padding = padding if padding is not None else {"roberta": 1}.get(language.name, 0)
        if folder is None:
            return
        files = find_tokenizer(language, folder)
        transformers = load_transformers("reading text")
        # The files are named one by one: a folder could hold others, of which transformers would fetch the rest.
        named = {"tokenizer_file": files[0]} if files[0].name == "tokenizer.json" else {}
        if not named and language.name == "bert":
            named = {"vocab": files[0]}
        elif not named:
            named = {"vocab": files[0], "merges": files[1]}
        self._read = getattr(transformers, language.tokenizer)(**{name: str(file) for name, file in named.items()})
        self.sha256 = hash_files(files)

    def __call__(self, texts: Sequence[str], vocabulary: int) -> tuple[Tensor, Tensor]:
        """Turn texts into tokens.

        Args:
            texts: any number of them, at least one.
            vocabulary: number of tokens that the network knows.

        Returns:
            (texts, tokens) numbers, filled up to the longest, and 1 if there is a token, 0 if it is filled up.

        Warns:
            RuntimeWarning: if texts are longer than those that the network was trained on; they are cut there, and keep the
                token that ends a text.
        """
        rows, n_cut = [], 0
        for text in texts:
            row = self._tokens(text + self.ending, vocabulary)
            n_cut += len(row) > self.longest
            rows.append(row if len(row) <= self.longest else [*row[: self.longest - 1], row[-1]])
        if n_cut:
            warnings.warn(
                f"{n_cut} of {len(texts)} texts have more than {self.longest} tokens, the most that the network was trained "
                "on; what comes after them is not read",
                RuntimeWarning,
                stacklevel=4,
            )
        width = max(map(len, rows))
        ids = torch.tensor([row + [self.padding] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        return ids, mask

    def _tokens(self, text: str, vocabulary: int) -> list[int]:
        if self._read is not None:
            return list(self._read(text, verbose=False)["input_ids"])
        return [2, *(4 + byte % max(1, vocabulary - 4) for byte in text.encode()), 3]


def find_tokenizer(language: Language, folder: Path) -> tuple[Path, ...]:
    """Find the files of a tokenizer: beside a checkpoint, or in the folder "tokenizer" there.

    Args:
        language: whose tokenizer.
        folder: of the checkpoint.

    Raises:
        FileNotFoundError: naming what is missing, and where to get it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "vocab.txt").touch()
        ...     [file.name for file in find_tokenizer(BERT, Path(folder))]
        ['vocab.txt']
    """
    for place in (folder, folder / "tokenizer"):
        for names in language.files:
            if all((place / name).is_file() for name in names):
                return tuple(place / name for name in names)
    wanted = " or ".join(" and ".join(names) for names in language.files)
    command = " ".join(["hf download", language.published_as, *language.files[-1]])
    raise FileNotFoundError(
        f"reading text needs the tokenizer's files beside the checkpoint, {wanted}, but {folder} lacks them; copy them "
        f"there from the hub's repository {language.published_as} ({command})"
    )


def hash_files(files: Sequence[Path]) -> str:
    """Return one SHA-256 over the names and contents of a tokenizer's files.

    Args:
        files: in the order of `find_tokenizer`.
    """
    hashes = " ".join(f"{file.name} {download.sha256_of(file)}" for file in files)
    return hashlib.sha256(hashes.encode()).hexdigest()


class TextHalf:
    """The network that reads, with its tokenizer and projection.

    Args:
        language: kind of its network.
        readout: how the tokens' states become one vector: "pooler" (BERT's own), "first" or "last" token.
        projection: into the space that sound shares; its names are those in `state`.
        normalised: whether vectors are scaled to length 1.
        tokenizer: as above.
        state: the tensors, as {"network": {...}, "projection": {...}}; None for random ones.
        settings: of the network, over what the tensors tell.
        where: of the checkpoint, for errors.
    """

    def __init__(
        self,
        language: Language,
        readout: str,
        projection: Callable[[int], nn.Module],
        tokenizer: Tokenizer,
        *,
        normalised: bool,
        state: Mapping[str, Mapping[str, Tensor]] | None = None,
        settings: Mapping[str, Any] | None = None,
        where: Path | None = None,
    ) -> None:
        transformers = load_transformers("reading text")
        self.readout, self.normalised, self.tokenizer = readout, normalised, tokenizer
        told = PUBLISHED[language.name] if state is None else describe_network(language, state["network"])
        config = getattr(transformers, language.settings)(**{**told, **(settings or {})})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)
            made: Any = getattr(transformers, language.network)
            self.network = (
                made(config) if language.name == "gpt2" else made(config, add_pooling_layer=readout == "pooler")
            )
            self.projection = projection(config.hidden_size)
        self.vocabulary = int(config.vocab_size)
        if state is not None:
            ignored = language.ignored + (() if readout == "pooler" else ("pooler.",))
            load_strict(self.network, state["network"], where or "checkpoint", ignored)
            load_strict(self.projection, state["projection"], where or "checkpoint")
        self.network.eval()
        self.projection.eval()

    def read(self, texts: Sequence[str], device: torch.device) -> Tensor:
        """Turn texts into vectors: (texts, width) float32 on the CPU. A text's vector does not depend on the others."""
        self.network.to(device)
        self.projection.to(device)
        parts = []
        for begin in range(0, len(texts), AT_ONCE):
            ids, mask = self.tokenizer(texts[begin : begin + AT_ONCE], self.vocabulary)
            ids, mask = ids.to(device), mask.to(device)
            output = self.network(input_ids=ids, attention_mask=mask)
            if self.readout == "pooler":
                vectors = output.pooler_output
            elif self.readout == "first":
                vectors = output.last_hidden_state[:, 0]
            else:  # of the tokens that are not the filling one, the last by their number, as MS-CLAP counts them
                last = (ids != self.tokenizer.padding).sum(dim=1) - 1
                vectors = output.last_hidden_state[torch.arange(len(ids), device=device), last]
            vectors = self.projection(vectors)
            parts.append(nn.functional.normalize(vectors, dim=-1) if self.normalised else vectors)
        return torch.cat(parts).float().cpu()


class ReadsText(Encoder):
    """An encoder whose sounds and texts share a space: the clip vectors of its layer `text_layer`, and `encode_text`.

    A family writes `build_text_half`.
    """

    language: ClassVar[Language] = ROBERTA
    _text_half: TextHalf | None = None
    checkpoint: Path | None = None

    def build_text_half(self) -> TextHalf:
        """Make the half that reads, from `checkpoint`, or with random numbers if there is none."""
        raise NotImplementedError

    @property
    def text_half(self) -> TextHalf:
        """The half that reads, made at its first use.

        Raises:
            ValueError: if the weights are of sound alone.
            FileNotFoundError: if files of the tokenizer are missing.
        """
        if self._text_half is None:
            if self.checkpoint is None and self.weights_label not in ("random", ""):
                raise ValueError(
                    f"the weights of {self.name}, {self.weights_label}, hold the half that hears alone; texts need the "
                    "published checkpoint"
                )
            self._text_half = self.build_text_half()
        return self._text_half

    @property
    def text_sha256(self) -> str:
        """Hash of the tokenizer's files, which change the vectors of texts as well as the weights do.

        Raises:
            FileNotFoundError: if some of them are missing; they are named.
        """
        if self._text_half is not None:
            return self._text_half.tokenizer.sha256
        return (
            BYTES if self.tokenizer_folder is None else hash_files(find_tokenizer(self.language, self.tokenizer_folder))
        )

    @property
    def tokenizer_folder(self) -> Path | None:
        """Folder in which the tokenizer's files are looked for first: that of the checkpoint; None without one."""
        if self.checkpoint is None:
            return None
        return self.checkpoint if self.checkpoint.is_dir() else self.checkpoint.parent

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Turn texts into vectors of the space of `text_layer`.

        Args:
            texts: one or more sentences.

        Returns:
            (texts, width) float32 on the CPU.

        Raises:
            ValueError: if there is no text, a text is empty, or the weights are of sound alone.
            FileNotFoundError: if files of the tokenizer are missing; they are named.
        """
        texts = list(texts)
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise ValueError(f"texts must be one or more sentences, none empty, got {texts[:3]!r}")
        with torch.inference_mode():
            return self.text_half.read(texts, self.device)
