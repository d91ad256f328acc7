"""The baselines that read: a language model alone, and one that also reads what a recogniser heard.

Weights are random, or the embedded model's own language model: what is tested is what reaches them, and that the world
gives nothing away to them.
"""

import json
import wave

import numpy as np
import pytest
import torch
from tiny_listeners import save_qwen2, save_whisper

from saven_hf import load, world
from saven_hf.cli import main
from saven_hf.evaluation import MemoryAdapter, WorldBenchmark, control_named, evaluate, open_adapter, run
from saven_hf.evaluation.adapters import Asked
from saven_hf.evaluation.benchmarks import Item
from saven_hf.hub import resolve_model


ITEM = Item("q", "v", "choice", "Which?", "A", ("a red circle", "a low tone"))


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory):
    return save_qwen2(tmp_path_factory.mktemp("qwen2"))


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    return save_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture
def sounds_only(monkeypatch, tmp_path):
    """The world's videos as sound files: nothing here looks at a picture, and those are quickly made."""

    def as_wave(scene, media_dir, size):
        path = tmp_path / f"{scene.video_id}.wav"
        if not path.is_file():
            write_wave(path, world.render_sound(scene))
        return path

    monkeypatch.setattr("saven_hf.evaluation.world.rendered", as_wave)


def write_wave(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def tone(path, pitch, seconds=3):
    return write_wave(path, np.sin(np.arange(16_000 * seconds) * pitch))


def test_text_alone_is_the_question_and_nothing_of_the_medium(qwen2, tmp_path):
    adapter = open_adapter(qwen2, "cpu", "text-only", max_new_tokens=6)
    low, high = (adapter.watch(tone(tmp_path / f"{pitch}.wav", pitch), control_named("plain")) for pitch in (0.05, 1))
    assert low.fed == high.fed == {"frames": 0, "audio_seconds": 0.0, "video_seconds": 0.0}
    prompts = ["Which?\nA. a red circle\nB. a low tone", "And what is heard after that, if anything is?"]
    batch = adapter.answer([Asked(medium, prompt, ITEM) for prompt in prompts for medium in (low, high)])
    assert batch[0] == batch[1] and batch[2] == batch[3] and batch[0] != batch[2]
    # Alone as in a batch, and exactly what the model itself says.
    assert adapter.answer([Asked(low, prompts[0], ITEM)]) == [batch[0]]
    text = adapter.tokenizer.apply_chat_template(
        [{"role": "user", "content": prompts[0]}], tokenize=False, add_generation_prompt=True
    )
    ids = adapter.tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
    with torch.no_grad():
        expected = adapter.model(input_ids=ids).logits[0, -1].log_softmax(-1)
    [weighed] = adapter.likelihoods([Asked(low, prompts[0], ITEM)], [adapter.candidates(ITEM)])
    letters = [adapter.tokenizer.convert_tokens_to_ids(letter) for letter in "AB"]
    assert [one.logprob for one in weighed] == pytest.approx(expected[letters].tolist(), abs=1e-4)


def test_what_a_recogniser_heard_is_read_and_nothing_else(qwen2, whisper, tmp_path):
    adapter = open_adapter(qwen2, "cpu", "speech-text", speech_model=whisper, max_new_tokens=2)
    plain = control_named("plain")
    low, high = (adapter.watch(tone(tmp_path / f"{pitch}.wav", pitch), plain) for pitch in (0.05, 1.0))
    assert low.fed["audio_seconds"] == high.fed["audio_seconds"] == 3 and low.fed["frames"] == 0
    assert low.state and high.state and low.state != high.state
    asked = [Asked(low, "Which?", ITEM), Asked(high, "Which?", ITEM)]
    one, other = ([each.logprob for each in those] for those in adapter.likelihoods(asked, [["A", "B"]] * 2))
    assert one != pytest.approx(other, abs=1e-4)
    read = adapter.tokenizer.decode(adapter._inputs(asked[:1])["input_ids"][0])
    assert low.state in read and read.index(low.state) < read.index("Which?")
    # Without the sound nothing is heard, and the question stands alone.
    deaf = adapter.watch(tmp_path / "1.0.wav", control_named("no-audio"))
    assert deaf.state == "" and deaf.fed["audio_seconds"] == 0
    assert "What is said" not in adapter.tokenizer.decode(
        adapter._inputs([Asked(deaf, "Which?", ITEM)])["input_ids"][0]
    )
    # The whole of a sound that is longer than the recogniser's window.
    assert adapter.watch(tone(tmp_path / "long.wav", 0.3, seconds=40), plain).fed["audio_seconds"] == 40


def test_subtitles_beside_the_medium_stand_for_speech(qwen2, tmp_path):
    adapter = open_adapter(qwen2, "cpu", "speech-text", speech_model="subtitles")
    path = tone(tmp_path / "said.wav", 0.3)
    assert adapter.watch(path, control_named("plain")).state == ""
    (tmp_path / "said.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nGood morning.\n")
    watched = adapter.watch(path, control_named("plain"))
    assert "Good morning." in watched.state and watched.fed["transcript_words"] >= 2
    assert adapter.watch(path, control_named("mute")).state == ""


def test_of_a_savenvideo_it_is_the_language_model(tmp_path):
    """What the whole model says of the question alone."""
    benchmark = WorldBenchmark("iid", 1, tmp_path, per_format=1, forms=["choice"])
    baseline = open_adapter(resolve_model(), "cpu", "text-only", max_new_tokens=4)
    whole = MemoryAdapter(*load(device="cpu"), max_new_tokens=4)
    alone = run(benchmark, baseline, tmp_path / "text", progress=False)
    blind = run(benchmark, whole, tmp_path / "blind", control_named("blind"), progress=False)
    assert [row["output"] for row in alone] == [row["output"] for row in blind] and any(row["output"] for row in alone)
    assert baseline.candidates(ITEM) == list(ITEM.options)


@pytest.mark.parametrize("baseline", ["text-only", pytest.param("speech-text", marks=pytest.mark.slow)])
def test_on_the_world_they_are_at_chance(baseline, qwen2, whisper, sounds_only, tmp_path):
    videos = 60 if baseline == "text-only" else 20
    speech = whisper if baseline == "speech-text" else None
    adapter = open_adapter(qwen2, "cpu", baseline, speech_model=speech, max_new_tokens=1)
    benchmark = WorldBenchmark("iid", videos, tmp_path, forms=["choice"])
    summary = evaluate(benchmark, adapter, tmp_path / "run", protocols=["generate", "likelihood"], progress=False)
    found = summary["benchmarks"]["world-iid"]
    level, weighed = found["plain"]["choice"]["chance"]["text"], found["likelihood"]["plain"]
    assert weighed["n"] >= 8.5 * videos and weighed["low"] <= level <= weighed["high"]
    assert weighed["high"] - weighed["low"] < (0.12 if videos == 60 else 0.2)
    assert found["plain"]["fed"]["frames"] == 0
    assert (found["plain"]["fed"]["audio_seconds"] > 0) == (baseline == "speech-text")


def test_the_command_takes_them(qwen2, whisper, sounds_only, tmp_path, capsys):
    words = ["eval", "--benchmark", "world", "--videos", "1", "--model", qwen2, "--device", "cpu", "--json"]
    words += ["--max-new-tokens", "2"]
    for name, more in (("text-only", []), ("speech-text", ["--speech-model", whisper])):
        out = tmp_path / name
        assert main([*words, "--baseline", name, *more, "--out", str(out)]) == 0
        settings = json.loads(capsys.readouterr().out)["settings"]
        assert settings["model"].startswith("text: ") and (settings["speech"] is None) == (name == "text-only")
    for wrong in (["text-only", "--speech-model", whisper], ["speech-text"]):
        assert main([*words, "--baseline", *wrong, "--out", str(tmp_path / "wrong")]) == 2
        assert "--speech-model" in capsys.readouterr().err
