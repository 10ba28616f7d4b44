"""GE2E: a speaker encoder, three LSTM layers over windows of 1.6 s.

Paper: Wan et al., "Generalized End-to-End Loss for Speaker Verification", ICASSP 2018, https://arxiv.org/abs/1710.10467.
Checkpoint: `resemblyzer/pretrained.pt` of the package Resemblyzer 0.1.4, Apache-2.0; models trained with the
Real-Time-Voice-Cloning code have the same tensors.
Input: 16 kHz, any length >= 1 sample. 40 mel bands of linear power (no logarithm): Slaney scale and norm, 25 ms Hann
window, 10 ms hop. Windows of 160 mel frames (1.6 s) begin every 77 frames (0.77 s); one that reaches beyond the clip is
zero-padded, and left out if the clip fills less than 3/4 of it, unless it is the clip's only one.

| layer | width | hop | what it is |
|---|---|---|---|
| lstm1, lstm2, lstm3 | 256 | 12320 | hidden state after a window's last mel frame: all that the network itself passes on |
| linear | 256 | 12320 | after ReLU |
| embedding | 256 | 12320 | `linear` divided by its length: the published embedding of a window |

Every window gives one frame. Layers are pooled by their mean over the windows. The package divides that mean by its
length once more; `Ge2e.utterance_embedding` gives exactly that vector. As features the plain mean is kept, because it
differs from it by one positive factor a clip only, and that factor says how alike the clip's windows are.
Differs from the original: the package's `preprocess_wav` (louder up to -30 dBFS, silences cut out by another voice
detector) is no part of this encoder: a probe should see the clip as it is, and tasks other than speech would lose most
of it. A window whose units are all off after the ReLU gives zeros instead of 0 / 0. A clip shorter than 1.6 s ends in
zeros, so the LSTM has heard silence by the time that its state is read, here as in the package.
Trained on: LibriSpeech-other, VoxCeleb1 and VoxCeleb2, English mostly, as its author states (Resemblyzer's issue 3).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from evar.encoders._logmel import MelSpectrogram
from evar.encoders._packing import as_count, count_missing, in_chunks, pack, unpack
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from evar.encoders.pooling import mean
from evar.encoders.weights import state_dict_of

MEL_HOP = 160  # samples
WINDOW_FRAMES = 160  # mel frames: 1.6 s
STEP_FRAMES = 77  # mel frames: the package asks for 1.3 windows a second, and rounds
WIDTH = 256

_WINDOW = WINDOW_FRAMES * MEL_HOP  # samples
_HOP = STEP_FRAMES * MEL_HOP  # samples
_BLOCK = 256  # windows at once: the LSTM keeps 160 states for each, 40 MB a block
_LOSS_ONLY = ("similarity_weight", "similarity_bias")  # scale and offset of the training loss


class Ge2e(Encoder):
    """Resemblyzer's voice encoder, every hidden layer.

    Example:
        >>> import torch
        >>> features = Ge2e().encode(torch.zeros(2, 48000), torch.tensor([48000, 100]))
        >>> features["embedding"].shape, features.frames["embedding"].tolist()
        (torch.Size([2, 3, 256]), [3, 1])
    """

    sample_rate = 16000
    layer_infos = (
        LayerInfo("lstm1", width=WIDTH, hop=_HOP, pooling="mean", note="state after each window of 1.6 s"),
        LayerInfo("lstm2", width=WIDTH, hop=_HOP, pooling="mean", note="state after each window of 1.6 s"),
        LayerInfo("lstm3", width=WIDTH, hop=_HOP, pooling="mean", note="state after each window of 1.6 s"),
        LayerInfo("linear", width=WIDTH, hop=_HOP, pooling="mean", note="after ReLU"),
        LayerInfo("embedding", width=WIDTH, hop=_HOP, pooling="mean", note="each window's vector has length 1"),
    )
    default_layers = ("embedding",)
    min_samples = 1
    batch_invariant = True

    def __init__(self) -> None:
        super().__init__()
        self.mel = MelSpectrogram(sample_rate=16000, n_fft=400, hop=MEL_HOP, n_mels=40)
        self.lstm = nn.LSTM(40, WIDTH, num_layers=3, batch_first=True)
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every layer; the valid windows of all clips run through the LSTM at once.

        (batch, samples) -> layer name -> (batch, time, width).
        """
        n_windows = self.valid_frames(lengths)
        end = (as_count(n_windows.max()) - 1) * _HOP + _WINDOW
        mel = self.mel(nn.functional.pad(waveform, (0, count_missing(waveform.shape[1], end))))  # (batch, frame, mel)
        windows = pack(mel.unfold(1, WINDOW_FRAMES, STEP_FRAMES), n_windows)  # (window, mel, frame)
        packed = in_chunks(self._network, windows, _BLOCK)
        return {name: unpack(value, n_windows) for name, value in packed.items()}

    def valid_frames(self, lengths: Tensor) -> Tensor:
        """Count the windows of clips: (batch,) samples -> (batch,) frames.

        Source: `VoiceEncoder.compute_partial_slices` of Resemblyzer 0.1.4 (rate 1.3, min_coverage 0.75).

        Example:
            >>> import torch
            >>> Ge2e().valid_frames(torch.tensor([1, 25600, 31519, 31520])).tolist()
            [1, 1, 1, 2]
        """
        mel_frames = lengths // MEL_HOP + 1
        begun = ((mel_frames - WINDOW_FRAMES).clamp(min=-STEP_FRAMES) + STEP_FRAMES) // STEP_FRAMES + 1
        covered = lengths - (begun - 1) * _HOP  # samples of the clip in its last window
        return begun - ((begun > 1) & (4 * covered < 3 * _WINDOW)).long()

    def utterance_embedding(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return one vector of length 1 for each clip, as the package's `embed_utterance` gives it.

        Args:
            waveform: (batch, samples) float32 in [-1, 1] at 16 kHz.
            lengths: (batch,) valid samples of each clip; None if all samples are valid.

        Returns:
            (batch, 256), not negative; compare two voices by their dot product.

        Raises:
            ValueError: if the waveform or lengths have another shape, type or range.
        """
        features = self.encode(waveform, lengths)
        return nn.functional.normalize(mean(features["embedding"], features.frames["embedding"]), dim=1)

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Take the network out of the training checkpoint, without what only the loss used."""
        state = state_dict_of(checkpoint.get("model_state", checkpoint))
        return {name: tensor for name, tensor in state.items() if name not in _LOSS_ONLY}

    def _network(self, windows: Tensor) -> dict[str, Tensor]:
        """(window, mel, frame) -> layer name -> (window, feature)."""
        _, (states, _) = self.lstm(windows.transpose(1, 2))  # (layer, window, feature): after the last mel frame
        linear = self.linear(states[-1]).relu()
        values = (*states, linear, nn.functional.normalize(linear, dim=1))
        return {info.name: value for info, value in zip(self.layer_infos, values, strict=True)}
