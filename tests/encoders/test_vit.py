"""The shared patch transformer against torch's own layers and formulas written apart; windows and groups of clips."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from evar.encoders._vit import (
    Attention,
    Block,
    Blocks,
    PatchEmbed,
    count_patches,
    first_columns,
    grid_of,
    join_qkv,
    resize_table,
    sincos_table,
    sinusoid_table,
    with_first,
)
from evar.encoders._windows import count_steps, run_windows, window_lengths

WIDTH, HEADS = 24, 3


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def filled(module: nn.Module) -> nn.Module:
    """Every parameter drawn, so that no bias, scale or norm is without effect."""
    with torch.no_grad():
        for number, value in enumerate(module.parameters()):
            value.copy_(noise(*value.shape, seed=number) * 0.3 + (1.0 if value.dim() == 1 else 0.0))
    return module


def torch_layer(block: Block) -> nn.TransformerEncoderLayer:
    """The same numbers in torch's own layer."""
    layer = nn.TransformerEncoderLayer(
        WIDTH, HEADS, 4 * WIDTH, 0.0, "gelu", block.norm1.eps, batch_first=True, norm_first=block.norm == "pre"
    ).eval()
    names = {
        "self_attn.in_proj_": "attn.qkv.",
        "self_attn.out_proj": "attn.proj",
        "linear1": "mlp.fc1",
        "linear2": "mlp.fc2",
    }
    own, state = block.state_dict(), {}
    for name in layer.state_dict():
        mine = name
        for theirs, ours in names.items():
            mine = mine.replace(theirs, ours)
        state[name] = own[mine]
    layer.load_state_dict(state)
    return layer


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("eps", [1e-6, 1e-5])
def test_a_block_equals_torchs_own_layer(norm, eps):
    block, tokens = filled(Block(WIDTH, HEADS, norm=norm, eps=eps)), noise(2, 7, WIDTH)
    torch.testing.assert_close(block(tokens), torch_layer(block)(tokens), rtol=1e-5, atol=1e-5)


def test_an_added_bias_is_torchs_mask():
    block, tokens, bias = filled(Block(WIDTH, HEADS)), noise(2, 7, WIDTH), noise(7, 7, seed=9)
    expected = torch_layer(block)(tokens, src_mask=bias)
    torch.testing.assert_close(block(tokens, bias), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(block(tokens), expected, atol=1e-2)


def test_padding_behind_a_mask_is_not_seen():
    blocks, tokens = filled(Blocks(2, WIDTH, HEADS)), noise(1, 7, WIDTH)
    longer = torch.cat([tokens, noise(1, 4, WIDTH, seed=3)], dim=1)
    takes_part = (torch.arange(11) < 7)[None, None, None]  # (1, 1, 1, key)
    for alone, padded in zip(blocks(tokens), blocks(longer, takes_part), strict=True):
        torch.testing.assert_close(alone, padded[:, :7], rtol=1e-5, atol=1e-5)


def attention_by_hand(attention: Attention, tokens: Tensor) -> Tensor:
    """Softmax of scaled products, head by head."""
    q, k, v = (tokens @ part.T for part in attention.qkv.weight.chunk(3))
    if attention.qkv.bias is not None:
        q, k, v = (value + part for value, part in zip((q, k, v), attention.qkv.bias.chunk(3), strict=True))
    size = WIDTH // HEADS
    heads = []
    for head in range(HEADS):
        mine = slice(head * size, (head + 1) * size)
        weights = (q[..., mine] @ k[..., mine].transpose(1, 2) / math.sqrt(size)).softmax(2)
        heads.append(weights @ v[..., mine])
    return attention.proj(torch.cat(heads, dim=2))


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_attention_equals_its_formula(qkv_bias):
    attention, tokens = filled(Attention(WIDTH, HEADS, qkv_bias=qkv_bias)), noise(2, 5, WIDTH)
    assert (attention.qkv.bias is not None) == qkv_bias
    torch.testing.assert_close(attention(tokens), attention_by_hand(attention, tokens), rtol=1e-5, atol=1e-5)


def test_deep_norm_scales_the_residual():
    alpha = 24**0.25
    block, tokens = filled(Block(WIDTH, HEADS, norm="post", residual_scale=alpha)), noise(2, 5, WIDTH)
    middle = block.norm1(alpha * tokens + attention_by_hand(block.attn, tokens))
    torch.testing.assert_close(block(tokens), block.norm2(alpha * middle + block.mlp(middle)), rtol=1e-5, atol=1e-5)


def test_layer_scale_multiplies_both_branches():
    block, tokens = Block(WIDTH, HEADS, layer_scale=0.5), noise(2, 5, WIDTH)
    middle = tokens + 0.5 * block.attn(block.norm1(tokens))
    torch.testing.assert_close(block(tokens), middle + 0.5 * block.mlp(block.norm2(middle)))
    assert set(dict(block.named_parameters())) - set(dict(Block(WIDTH, HEADS).named_parameters())) == {"ls1", "ls2"}


def test_a_family_may_make_its_bias_depend_on_the_query():
    class Gated(Attention):
        def make_bias(self, query, bias):
            return bias * query.mean(dim=3, keepdim=True).sigmoid()  # (batch, head, query, key)

    blocks, tokens = Blocks(2, WIDTH, HEADS, attention=Gated), noise(2, 5, WIDTH)
    bias = noise(1, HEADS, 5, 5)
    plain = Blocks(2, WIDTH, HEADS)
    plain.load_state_dict(blocks.state_dict())
    gated, ungated = list(blocks(tokens, bias)), list(plain(tokens, bias))
    assert not torch.allclose(gated[0], ungated[0], atol=1e-3)


def test_blocks_yield_every_output():
    blocks, tokens = Blocks(3, WIDTH, HEADS), noise(2, 5, WIDTH)
    outputs = list(blocks(tokens))
    assert len(outputs) == 3
    for before, block, after in zip([tokens, *outputs], blocks, outputs, strict=False):
        assert torch.equal(block(before), after)
    assert {name.split(".")[0] for name in blocks.state_dict()} == {"0", "1", "2"}


def test_activations_are_named_and_wrong_words_are_refused():
    tokens = noise(1, 4, WIDTH)
    gelu = Block(WIDTH, HEADS)
    relu = Block(WIDTH, HEADS, activation="relu")
    relu.load_state_dict(gelu.state_dict())
    assert not torch.allclose(gelu(tokens), relu(tokens))
    with pytest.raises(ValueError, match="no activation 'gelo'; it has gelu, relu, silu; did you mean 'gelu'"):
        Block(WIDTH, HEADS, activation="gelo")
    with pytest.raises(ValueError, match="no norm 'pro'"):
        Block(WIDTH, HEADS, norm="pro")


def test_patches_are_what_the_image_holds_in_row_order():
    embed = PatchEmbed(4, (2, 3), bias=False)
    with torch.no_grad():
        embed.proj.weight.zero_()
        embed.proj.weight[0] = 1.0  # the first feature is the patch's sum
    image = noise(1, 5, 10)
    sums = [image[0, 2 * row : 2 * row + 2, 3 * column : 3 * column + 3].sum() for row in (0, 1) for column in range(3)]
    torch.testing.assert_close(embed(image)[0, :, 0], torch.stack(sums))
    overlapping = PatchEmbed(4, (2, 3), stride=(1, 2))
    assert overlapping(image).shape[1] == count_patches(5, 2, 1) * count_patches(10, 3, 2) == 4 * 4


@pytest.mark.parametrize("order", ["time", "frequency"])
def test_a_grid_undoes_the_order_of_the_tokens(order):
    spectrogram = noise(1, 6, 8)  # 3 time steps of 4 bands
    image = spectrogram if order == "time" else spectrogram.transpose(1, 2)
    embed = PatchEmbed(1, (2, 2), bias=False)
    with torch.no_grad():
        embed.proj.weight.fill_(1.0)
    grid = grid_of(embed(image), 4, order)
    assert grid.shape == (1, 3, 4, 1)
    for time in range(3):
        for band in range(4):
            total = spectrogram[0, 2 * time : 2 * time + 2, 2 * band : 2 * band + 2].sum()
            torch.testing.assert_close(grid[0, time, band, 0], total)
    with pytest.raises(ValueError, match="no order 'tim'"):
        grid_of(embed(image), 4, "tim")


def test_first_tokens_come_first():
    both = with_first(torch.ones(1, 2, 3), torch.zeros(2, 4, 3))
    assert both.shape == (2, 6, 3)
    assert both[:, :2].min() == 1 and both[:, 2:].max() == 0


def test_the_two_dimensional_table_equals_its_formula():
    table = sincos_table(3, 5, 16)
    assert table.shape == (1, 16, 16) and not table[0, 0].any()
    for row in range(3):
        for column in range(5):
            values = table[0, 1 + 5 * row + column]
            for j in range(4):
                rate = 10000 ** (-j / 4)
                for half, position in ((0, column), (8, row)):
                    assert float(values[half + j]) == pytest.approx(math.sin(position * rate), abs=1e-6)
                    assert float(values[half + 4 + j]) == pytest.approx(math.cos(position * rate), abs=1e-6)
    assert torch.equal(sincos_table(3, 5, 16, n_first=0), table[:, 1:])


def test_the_one_dimensional_table_equals_its_formula():
    table = sinusoid_table(50, 12)[0]
    for n in (0, 1, 49):
        for j in range(6):
            angle = n * 10000 ** (-2 * j / 12)
            assert float(table[n, 2 * j]) == pytest.approx(math.sin(angle), abs=1e-6)
            assert float(table[n, 2 * j + 1]) == pytest.approx(math.cos(angle), abs=1e-6)


def test_a_cut_table_is_that_of_a_shorter_grid():
    assert torch.equal(first_columns(sincos_table(5, 38, 16), 5, 7), sincos_table(5, 7, 16))
    assert torch.equal(first_columns(sincos_table(5, 38, 16), 5, 38), sincos_table(5, 38, 16))
    with pytest.raises(ValueError, match="has 38 columns, but 39 are needed"):
        first_columns(sincos_table(5, 38, 16), 5, 39)


def test_a_resized_table_is_cropped_from_its_centre_or_stretched():
    table = noise(1, 2 + 8 * 64, 4)
    grid = table[:, 2:].transpose(1, 2).unflatten(2, (8, 64))

    def laid(n_rows: int, n_columns: int) -> Tensor:
        resized = resize_table(table, (8, 64), n_rows, n_columns)
        assert torch.equal(resized[:, :2], table[:, :2])
        return resized[:, 2:].transpose(1, 2).unflatten(2, (n_rows, n_columns))

    assert torch.equal(laid(8, 64), grid)
    assert torch.equal(laid(8, 21), grid[..., 32 - 10 : 32 - 10 + 21])
    stretch = nn.functional.interpolate
    torch.testing.assert_close(laid(8, 100), stretch(grid, size=(8, 100), mode="bilinear"))
    torch.testing.assert_close(laid(12, 30), stretch(grid[..., 17:47], size=(12, 30), mode="bilinear"))


def test_queries_keys_and_values_are_joined_in_order():
    parts = {part: noise(3, 3, seed=number) for number, part in enumerate("qkv")}
    state = {f"layers.0.self_attn.{part}_proj.weight": value for part, value in parts.items()}
    state |= {"layers.0.self_attn.out_proj.weight": noise(3, 3, seed=7), "norm.weight": noise(3)}
    joined = join_qkv(state)
    assert list(joined) == ["layers.0.attn.qkv.weight", "layers.0.attn.proj.weight", "norm.weight"]
    assert torch.equal(joined["layers.0.attn.qkv.weight"], torch.cat(list(parts.values())))
    del state["layers.0.self_attn.k_proj.weight"]
    assert "layers.0.self_attn.q_proj.weight" in join_qkv(state)


def means(frames: Tensor) -> dict[str, Tensor]:
    """A network of two frames a step that also sees its whole window."""
    whole = frames.mean(dim=(1, 2))[:, None, None]
    return {"steps": frames.unflatten(1, (-1, 2)).mean(2) + whole, "cls": whole}


def run(frames: Tensor, lengths: Tensor, unit: int, padded: bool = False) -> dict[str, Tensor]:
    return run_windows(
        means,
        frames,
        lengths,
        unit=unit,
        size=lambda n: unit if padded else n + n % 2,
        steps=lambda n: -(-n // 2),
        per_window=("cls",),
    )


@pytest.mark.parametrize(("unit", "padded"), [(0, False), (4, False), (6, False), (4, True), (6, True)])
def test_windows_of_a_batch_are_those_of_each_clip_alone(unit, padded):
    lengths = [13, 4, 8, 1, 13]
    frames = noise(len(lengths), 13, 3)
    together = run(frames, torch.tensor(lengths), unit, padded)
    counts = count_steps(torch.tensor(lengths), unit, lambda n: -(-n // 2))
    assert together["steps"].shape == (5, int(counts.max()), 3)
    for row, length in enumerate(lengths):
        alone = run(frames[row : row + 1, :length], torch.tensor([length]), unit, padded)
        assert alone["steps"].shape[1] == counts[row]
        torch.testing.assert_close(together["steps"][row, : counts[row]], alone["steps"][0])
        torch.testing.assert_close(together["cls"][row], alone["cls"][0])
        begins = [sum(window_lengths(length, unit)[:i]) for i in range(len(window_lengths(length, unit)))]
        expected = []
        for begin, count in zip(begins, window_lengths(length, unit), strict=True):
            size = unit if padded else count + count % 2
            window = torch.zeros(1, size, 3)
            window[0, :count] = frames[row, begin : begin + count]
            expected.append(means(window)["steps"][0, : -(-count // 2)])
        torch.testing.assert_close(alone["steps"][0], torch.cat(expected))


def test_windows_carry_gradients():
    frames = noise(2, 9, 3).requires_grad_()
    run(frames, torch.tensor([9, 5]), 4)["steps"].sum().backward()
    assert bool((frames.grad[0] != 0).all()) and not frames.grad[1, 5:].any()


def test_a_window_without_a_step_is_not_run():
    out = run_windows(
        lambda x: {"s": x[:, :2]}, noise(1, 9, 3), torch.tensor([9]), unit=4, size=lambda n: 4, steps=lambda n: n // 2
    )
    assert out["s"].shape == (1, 4, 3)
