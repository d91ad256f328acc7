"""`--transcribe MODEL`: a tiny random Whisper takes the path of a real one, through transformers, into a column."""

import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

from saven_hf.pipeline.annotators import Clip
from saven_hf.pipeline.errors import AnnotatorError
from saven_hf.pipeline.stages import Settings, VideoTask, Work, Worker
from saven_hf.pipeline.transcribe import open_transcriber
from saven_hf.savenvideo.media import open_media


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    torch.manual_seed(0)
    folder = str(tmp_path_factory.mktemp("whisper"))
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = WhisperTokenizer({token: at for at, token in enumerate([*alphabet, *special])}, [])
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:]})
    end, start, plain = tokenizer.convert_tokens_to_ids(special)
    config = WhisperConfig(
        vocab_size=len(alphabet) + len(special), num_mel_bins=16, d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16,
        decoder_start_token_id=start, eos_token_id=end, bos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        decoder_start_token_id=start, eos_token_id=end, pad_token_id=end, bos_token_id=end, max_new_tokens=6,
        no_timestamps_token_id=plain, suppress_tokens=[start, plain],
    )  # fmt: skip
    model.save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(feature_size=16), tokenizer).save_pretrained(folder)
    return folder


def test_speech_becomes_a_column_and_no_caption(whisper, clip_path, tmp_path):
    settings = Settings(transcriber=whisper)
    worker = Worker(settings, Work(tmp_path), annotator=None)
    row = worker.run_video(VideoTask("four", str(clip_path), clip_path.name))
    said = [one["transcript"] for one in row["segments"]]
    assert any(said) and all(text is None or text == text.strip() for text in said)
    for one in row["segments"]:
        assert one["transcript"] is None or one["transcript"] not in one["audio_caption"]


def test_long_sound_is_heard_to_its_end(whisper, clip_path, monkeypatch):
    transcribe = open_transcriber(whisper)
    with open_media(clip_path) as media:
        clip = Clip(media, {"start": 0.0, "end": 12.0})
        whole = transcribe(clip)
        monkeypatch.setattr("saven_hf.pipeline.transcribe._LONGEST", 4.0)
        assert transcribe(clip) != whole  # of three pieces


def test_a_recogniser_that_is_not_there():
    with pytest.raises(AnnotatorError, match="cannot be loaded"):
        open_transcriber("/nowhere/whisper")
