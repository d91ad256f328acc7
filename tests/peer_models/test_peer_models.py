"""Models of transformers that are not ours, through the same commands; their weights are random."""

import json

import numpy as np
import pytest

from saven_hf.cli import main
from saven_hf.evaluation import OpenQA, TransformersAdapter, control_named, evaluate
from saven_hf.evaluation.adapters import Asked
from saven_hf.evaluation.benchmarks import Item, Pair
from saven_hf.peers.auto import PeerModel


@pytest.fixture(scope="module")
def omni(tmp_path_factory):
    from tiny_peers import save_omni

    return save_omni(tmp_path_factory.mktemp("omni"))


@pytest.fixture(scope="module")
def gemma4(tmp_path_factory):
    from tiny_peers import save_gemma4

    return save_gemma4(tmp_path_factory.mktemp("gemma4"))


@pytest.fixture(scope="module")
def videollama3(tmp_path_factory):
    from tiny_peers import save_videollama3

    return save_videollama3(tmp_path_factory.mktemp("videollama3"))


@pytest.fixture(scope="module")
def qwen3_omni(tmp_path_factory):
    from tiny_peers import save_qwen3_omni

    return save_qwen3_omni(tmp_path_factory.mktemp("qwen3_omni"))


def heard_by(peer):
    """Notes whether the tower that hears is called, and with how much."""
    calls = []
    peer.model.get_encoder("audio").register_forward_pre_hook(
        lambda module, args, kwargs: calls.append({**kwargs, "args": args}), with_kwargs=True
    )
    return calls


def logits(peer, material, prompt="What is heard?"):
    inputs, fed = peer.inputs([material], [prompt])
    return peer.model(**inputs).logits[0, -1].detach().numpy(), fed, inputs


def assert_heard(peer, material, loud):
    """Another answer without what was heard; leaves the material silent."""
    material.waveform = np.zeros_like(material.waveform)
    silent, *_ = logits(peer, material)
    assert np.abs(loud - silent).max() > 1e-4


def test_omni_hears_the_whole_sound_of_a_video(omni, clip):
    peer = PeerModel.load(omni, "cpu", num_frames=4)
    assert (peer.sees, peer.hears) == ("video", "in video")
    calls = heard_by(peer)
    material = peer.read(clip)
    loud, fed, inputs = logits(peer, material)
    assert fed["frames"] == 4 and fed["audio_seconds"] == pytest.approx(12, abs=0.05)
    # The extractor's window is 5 s here; it would drop the rest.
    assert inputs["feature_attention_mask"].sum().item() == pytest.approx(1200, abs=2)
    assert inputs["video_second_per_grid"][0].item() == pytest.approx(6, abs=0.1)  # two frames of every 3 s
    assert len(calls) == 1
    assert_heard(peer, material, loud)
    deaf, fed, inputs = logits(peer, peer.read(clip, sound=False))
    assert fed["audio_seconds"] == 0 and "input_features" not in inputs and len(calls) == 2


def test_qwen3_omni_sees_and_hears(qwen3_omni, clip):
    peer = PeerModel.load(qwen3_omni, "cpu", num_frames=4)
    assert (peer.sees, peer.hears) == ("video", "in video")
    material = peer.read(clip)
    loud, fed, _ = logits(peer, material)
    assert fed["frames"] == 4 and fed["audio_seconds"] == pytest.approx(12, abs=0.05)
    assert_heard(peer, material, loud)
    adapter = TransformersAdapter(peer, max_new_tokens=2)
    watched = adapter.watch(clip, control_named("plain"))
    answers = adapter.answer([Asked(watched, "What is heard?", None)] * 2)
    assert len(set(answers)) == 1 and watched.fed["audio_seconds"] == pytest.approx(12, abs=0.05)


def test_gemma4_hears_beside_the_frames(gemma4, clip):
    peer = PeerModel.load(gemma4, "cpu", num_frames=4)
    assert (peer.sees, peer.hears) == ("video", "beside")
    calls = heard_by(peer)
    material = peer.read(clip)
    loud, fed, inputs = logits(peer, material)
    assert fed["frames"] == 4 and fed["audio_seconds"] == pytest.approx(12, abs=0.05)
    text = peer.tokenizer.decode(inputs["input_ids"][0])
    assert [f"{int(time // 60):02}:{int(time % 60):02} " in text for time in material.frame_times] == [True] * 4
    # A token of sound stands for 40 ms.
    assert (inputs["input_ids"] == peer.model.config.audio_token_id).sum().item() == pytest.approx(300, abs=1)
    assert len(calls) == 1
    assert_heard(peer, material, loud)
    # The extractor would drop what comes after 30 s.
    material.waveform = np.zeros(40 * peer.listener.sampling_rate, np.float32)
    assert logits(peer, material)[1]["audio_seconds"] == pytest.approx(40, abs=0.05)
    deaf, fed, inputs = logits(peer, peer.read(clip, sound=False))
    assert fed["audio_seconds"] == 0 and "input_features" not in inputs and len(calls) == 3


def test_videollama3_sees_true_times_and_hears_nothing(videollama3, clip):
    peer = PeerModel.load(videollama3, "cpu", num_frames=4)
    assert (peer.sees, peer.hears) == ("video", None)
    material = peer.read(clip)
    assert material.waveform is None
    _, fed, inputs = logits(peer, material)
    text = peer.tokenizer.decode(inputs["input_ids"][0])
    assert [f"Time {time:.1f}s" in text for time in material.frame_times] == [True] * 4
    assert fed["frames"] == 4 and fed["audio_seconds"] == 0


@pytest.mark.parametrize("control, frames, seconds", [
    ("plain", 4, 12), ("no-audio", 4, 0), ("no-video", 0, 12), ("blind", 0, 0), ("mute", 4, 12),
])  # fmt: skip
@pytest.mark.parametrize("name", ["omni", "gemma4"])
def test_controls(request, name, clip, tmp_path, control, frames, seconds):
    folder = request.getfixturevalue(name)
    adapter = TransformersAdapter(PeerModel.load(folder, "cpu", num_frames=4), max_new_tokens=2)
    control = control_named(control)
    item = Item("q", "clip", "choice", "Which?", "A", ("x", "y"))
    watched = adapter.watch(control.edited(clip, folder=tmp_path), control)
    asked = [Asked(watched, "Which?\nA. x\nB. y", item)] * 3
    answers = adapter.answer(asked)
    assert len(set(answers)) == 1 and watched.fed["frames"] == frames
    assert watched.fed["audio_seconds"] == pytest.approx(seconds, abs=0.1)
    weighed = adapter.likelihoods(asked, [["A", "B"], ["A", "B"], ["x y", "y"]])
    once, again = ([one.logprob for one in those] for those in weighed[:2])
    assert once == pytest.approx(again) and weighed[2][0].tokens == 3


@pytest.mark.parametrize("name", ["omni", "gemma4"])
def test_pairs_and_a_batch_say_the_same_as_one_by_one(request, name, clip, tmp_path):
    from PIL import Image

    Image.new("RGB", (56, 56), "red").save(tmp_path / "red.png")
    peer = PeerModel.load(request.getfixturevalue(name), "cpu", num_frames=4)
    adapter = TransformersAdapter(peer, max_new_tokens=3)
    watched = adapter.watch(Pair(tmp_path / "red.png", clip), control_named("plain"))
    assert adapter.answer([Asked(watched, "What?", None)]) and watched.fed["frames"] == 1
    assert watched.fed["audio_seconds"] == pytest.approx(12, abs=0.1)
    watched = adapter.watch(clip, control_named("plain"))
    prompts = ["What?", "And what is heard after that, if anything is?", "Why?"]
    alone = [adapter.answer([Asked(watched, prompt, None)])[0] for prompt in prompts]
    assert adapter.answer([Asked(watched, prompt, None) for prompt in prompts]) == alone


@pytest.mark.parametrize("name", ["omni", "gemma4", "videollama3"])
def test_the_same_commands(request, name, clip, tmp_path, capsys):
    folder = request.getfixturevalue(name)
    (tmp_path / "mine.jsonl").write_text(
        json.dumps({"video": str(clip.name), "question": "Which?", "options": ["x", "y"], "answer": "B"}) + "\n"
        + json.dumps({"video": str(clip.name), "question": "What?", "answer": "a tone"}) + "\n"
    )  # fmt: skip
    (tmp_path / clip.name).write_bytes(clip.read_bytes())
    words = ["eval", "--benchmark", "open-qa", "--data", str(tmp_path), "--model", str(folder), "--device", "cpu"]
    words += ["--out", str(tmp_path / "run"), "--num-frames", "2", "--max-new-tokens", "2", "--protocol", "likelihood"]
    assert main([*words, "--control", "blind", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    fed = summary["benchmarks"]["open-qa"]["plain"]["fed"]
    assert fed["frames"] == 2 and fed["audio_seconds"] == pytest.approx(0 if name == "videollama3" else 12, abs=0.1)
    assert main(["ask", str(clip), "What is heard?", "--model", str(folder), "--device", "cpu", "--num-frames", "2",
                 "--max-new-tokens", "2", "--json"]) == 0  # fmt: skip
    asked = json.loads(capsys.readouterr().out)
    assert asked["fed"]["frames"] == 2 and len(asked["answers"]) == 1
    assert asked["fed"]["audio_seconds"] == pytest.approx(0 if name == "videollama3" else 12, abs=0.1)


def test_evaluate_takes_a_peer(videollama3, clip, tmp_path):
    (tmp_path / "mine.jsonl").write_text(json.dumps({"video": clip.name, "question": "What?", "answer": "a tone"}))
    (tmp_path / clip.name).write_bytes(clip.read_bytes())
    adapter = TransformersAdapter(PeerModel.load(videollama3, "cpu", num_frames=2), max_new_tokens=2)
    summary = evaluate(OpenQA(tmp_path), adapter, tmp_path / "run", ["no-audio"], progress=False)
    assert summary["settings"]["hears"] is None
    assert summary["benchmarks"]["open-qa"]["controls"]["no-audio"]["against_plain"]["difference"]["value"] == 0
