"""AutoShot: its formulae restated plainly, the published names and shapes, and windows over a real file."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from saven_hf.cli import main
from saven_hf.peers.autoshot import convert_autoshot
from saven_hf.peers.beats import CheckpointError
from saven_hf.pipeline.autoshot import (
    AutoShotBlock,
    AutoShotConfig,
    AutoShotDetector,
    AutoShotModel,
    AutoShotNeighbours,
    colour_counts,
)
from saven_hf.savenvideo.media import open_media


SMALL = {"filters": (2, 2, 2, 2, 2, 2), "multipliers": (1, 2, 2, 2, 2, 1), "dilations": (2, 2, 2, 2, 2, 2)}


def small() -> AutoShotModel:
    torch.manual_seed(0)
    model = AutoShotModel(AutoShotConfig(**SMALL, hidden_size=8, similarity_size=4))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def published(model: AutoShotModel) -> dict[str, torch.Tensor]:
    """A state dict under the authors' names, written out by hand."""
    blocks = ("Layer_0_3", "Layer_1_8", "Layer_2_8", "Layer_3_8", "Layer_4_13", "Layer_5_12")
    state = {}
    for name, block, shared in zip(blocks, model.blocks, model.config.shared, strict=True):
        if shared:
            state[f"{name}.share.weight"] = block.shared.weight
        for at, branch in enumerate(block.branches):
            layers = [branch.temporal] if shared else [branch.spatial, branch.temporal]
            state |= {f"{name}.conv_blocks.{at}.layers.{n}.weight": layer.weight for n, layer in enumerate(layers)}
        state |= {f"{name}.batch_norm.{key}": value for key, value in block.norm.state_dict().items()}
    for name, module in (
        ("fc1_0", model.hidden), ("cls_layer1", model.one_hot), ("cls_layer2", model.many_hot),
        ("frame_sim_layer.projection", model.frame_neighbours.projection),
        ("frame_sim_layer.fc", model.frame_neighbours.output), ("color_hist_layer.fc", model.colour_neighbours.output),
    ):  # fmt: skip
        state |= {f"{name}.linear.{key}": value for key, value in module.state_dict().items()}
    return {key: value.detach().clone() for key, value in state.items()}


def test_sizes_are_those_of_the_published_network():
    with torch.device("meta"):
        model = AutoShotModel(AutoShotConfig())
    assert model.hidden.in_features == 4864 and model.frame_neighbours.projection.in_features == 448
    assert [block.norm.num_features for block in model.blocks] == [64, 64, 128, 128, 256, 256]
    assert [branch.temporal.out_channels for branch in model.blocks[1].branches] == [12, 12, 12, 12, 16]
    assert model.blocks[4].branches[0].spatial.out_channels == 192


def test_a_block_is_branches_side_by_side():
    torch.manual_seed(0)
    block = AutoShotBlock(3, 2, 2, 3, is_shared=True).eval()
    inputs = torch.rand(1, 3, 9, 5, 6)
    seen = functional.conv3d(inputs, block.shared.weight, padding=(0, 1, 1))
    parts = []
    for at, branch in enumerate(block.branches):
        reach, weight = 2**at, branch.temporal.weight[..., 0, 0]
        padded = functional.pad(seen, (0, 0, 0, 0, reach, reach))
        views = [padded[:, :, shift : shift + 9] for shift in (0, reach, 2 * reach)]
        parts.append(sum(torch.einsum("oc,bcthw->bothw", weight[..., k], view) for k, view in enumerate(views)))
    expected = functional.relu(torch.cat(parts, dim=1) / (1 + 1e-3) ** 0.5)
    torch.testing.assert_close(block(inputs), expected)


def test_neighbours_are_cosines_around_each_frame():
    torch.manual_seed(0)
    layer = AutoShotNeighbours(AutoShotConfig(lookup_window=5, similarity_size=3))
    features = torch.rand(1, 7, 4)
    rows = torch.zeros(7, 5)
    for t in range(7):
        for k, other in enumerate(range(t - 2, t + 3)):
            if 0 <= other < 7:
                rows[t, k] = torch.cosine_similarity(features[0, t], features[0, other], dim=0)
    torch.testing.assert_close(layer(features)[0], functional.relu(layer.output(rows)))


def test_colours_are_counted_by_their_upper_bits():
    pixels = torch.zeros(1, 1, 3, 2, 2, dtype=torch.uint8)
    pixels[0, 0, :, 0, 0] = torch.tensor([255, 32, 0])
    counts = colour_counts(pixels)[0, 0]
    assert counts[(7 << 6) + (1 << 3)] == 1 and counts[0] == 3 and counts.sum() == 4


def test_windows_over_a_file_are_the_whole_of_it(clip_path, tmp_path):
    model = small()
    model.save_pretrained(tmp_path / "model")
    detector = AutoShotDetector(tmp_path / "model")
    with open_media(clip_path) as media:
        found = detector.score(media)
        frames = media.frames_at(media.frame_times(), (27, 48), "area")[0]
    assert len(found.scores) == 300 and found.threshold == pytest.approx(0.296)
    padded = torch.cat([frames[:1].repeat(25, 1, 1, 1), frames, frames[-1:].repeat(75, 1, 1, 1)])
    with torch.no_grad():
        windows = [model(padded[start : start + 100][None]).logits[0, 25:75] for start in range(0, 300, 50)]
    ends = torch.cat(windows).sigmoid().numpy()
    np.testing.assert_allclose(found.scores[1:], ends[:299], atol=1e-5)
    assert found.scores[0] == 0


def test_published_names_are_converted(tmp_path, monkeypatch, capsys):
    model = small()
    monkeypatch.setattr("saven_hf.peers.autoshot.AutoShotConfig", lambda: model.config)
    state = published(model) | {"fc1.linear.weight": torch.zeros(2, 2), "Layer_0_1.share.weight": torch.zeros(1)}
    torch.save({"net": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "ckpt.pth")
    assert main(["convert", "autoshot", str(tmp_path / "ckpt.pth"), str(tmp_path / "out")]) == 0
    assert "left out: fc1.linear.weight (1: for attention" in capsys.readouterr().out
    again = AutoShotModel.from_pretrained(tmp_path / "out").eval()
    frames = torch.randint(0, 256, (1, 60, 3, 27, 48), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(again(frames).logits, model(frames).logits)


def test_files_that_are_no_checkpoint(tmp_path, monkeypatch):
    model = small()
    monkeypatch.setattr("saven_hf.peers.autoshot.AutoShotConfig", lambda: model.config)
    state = published(model)
    torch.save({"net": state | {"fc1_0.linear.weight": torch.zeros(3)}}, tmp_path / "shape.pth")
    torch.save({"net": state | {"decoder.weight": torch.zeros(3)}}, tmp_path / "unknown.pth")
    torch.save({"net": {"fc1_0.linear.weight": torch.zeros(3)}}, tmp_path / "lacking.pth")
    torch.save({"net": {}}, tmp_path / "empty.pth")
    (tmp_path / "text.pth").write_text("no")
    for name, problem in (
        ("shape", "has the shape"),
        ("unknown", "1 tensors of no known part: decoder.weight"),
        ("lacking", "Missing: "),
        ("empty", "no dictionary"),
        ("text", "was not read"),
        ("x", "no file"),
    ):
        with pytest.raises(CheckpointError, match=problem):
            convert_autoshot(tmp_path / f"{name}.pth", tmp_path / "out")
    assert not list(tmp_path.glob("out*"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(FileExistsError, match="choose another folder"):
        convert_autoshot(tmp_path / "x.pth", tmp_path / "full")
