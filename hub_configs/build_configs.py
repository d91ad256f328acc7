"""Writes the model folders of this directory: `python hub_configs/build_configs.py [--check]`.

`savenvideo-tiny` is the embedded default; `savenvideo-7b` is the paper's model without weights (`saven init-7b` puts
them together); `videollama2.1-7b-av` is VideoLLaMA2.1-7B-AV without weights, as `saven convert videollama2` writes it;
`video-salmonn-13b` is the same of `saven convert video-salmonn`, and `favor-7b` its connector in the paper's model.
Numbers that the paper gives are marked; those of VideoLLaMA 2 are its own; all others are our decision.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import shutil
import sys
import tempfile
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
    WhisperConfig,
)

from saven_hf import (
    SAVEnVideoBeatsConfig,
    SAVEnVideoBeatsFeatureExtractor,
    SAVEnVideoConfig,
    SAVEnVideoProcessor,
)
from saven_hf.peers.video_salmonn import CHAT_TEMPLATE
from saven_hf.peers.video_salmonn import PUBLISHED_SETTINGS as SALMONN_SETTINGS
from saven_hf.peers.videollama2 import PATCHES_PER_WINDOW, PROJECTORS, PUBLISHED_SETTINGS, QWEN2_TEMPLATE


HERE = Path(__file__).parent

TINY_NOTICE = (
    "the weights of this tiny model are untrained, so its answers mean nothing yet; for real video, assemble a 7B "
    "with `saven init-7b` and pass it as --model."
)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """256 bytes and the special tokens: no text is out of its reach, and it needs no corpus."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=4096,
    )


def write_tiny(folder: Path) -> None:
    """A few million parameters with every part of the 7B."""
    tokenizer = byte_tokenizer()
    vision = SiglipVisionConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=64,
        patch_size=16,
        vision_use_head=False,
    )
    audio = SAVEnVideoBeatsConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        patch_embed_dim=64,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        num_buckets=64,
        max_bucket_distance=256,
    )
    settings = {
        "vision_config": vision,
        "audio_config": audio,
        "resampler_hidden_size": 192,
        "resampler_heads": 4,
        "resampler_intermediate_size": 512,
        "queries_per_window": 16,
        "window_seconds": 10.0,
        "window_frames": 32,
        "notice": TINY_NOTICE,
    }
    processor = SAVEnVideoProcessor.from_components(tokenizer, config=SAVEnVideoConfig(**settings))
    text = Qwen2Config(
        vocab_size=-(-len(tokenizer) // 8) * 8,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    ids = {f"{kind}_token_id": tokenizer.convert_tokens_to_ids(f"<|{kind}|>") for kind in ("video", "image", "audio")}
    processor.save_pretrained(folder)
    SAVEnVideoConfig(**settings, text_config=text, **ids).save_pretrained(folder)
    GenerationConfig(
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=sorted(ids.values()),
        max_new_tokens=256,
    ).save_pretrained(folder)


def qwen2_7b() -> Qwen2Config:
    """Qwen2-7B-Instruct."""
    return Qwen2Config(
        vocab_size=152_064,
        hidden_size=3584,
        intermediate_size=18_944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        max_position_embeddings=32_768,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        eos_token_id=151_645,
        bos_token_id=151_643,
    )


def write_7b(folder: Path) -> None:
    """SigLIP-so400m-384, BEATs iter3+ and Qwen2-7B-Instruct, as in the paper (5, implementation details)."""
    config = SAVEnVideoConfig(text_config=qwen2_7b())
    write_without_weights(folder, config, max_new_tokens=512)


def write_videollama2(folder: Path) -> None:
    """The same parts with VideoLLaMA 2's connector, and its preprocessing of 16 frames."""
    text = qwen2_7b()
    config = SAVEnVideoConfig(
        text_config=text,
        resampler_hidden_size=text.hidden_size,
        vision_feature_layer=-2,
        image_frames=16,
        **PROJECTORS["stc_connector_v35"],
        **PUBLISHED_SETTINGS,
    )
    extractor = SAVEnVideoBeatsFeatureExtractor(patches_per_window=PATCHES_PER_WINDOW, fbank_dtype="bfloat16")
    settings = {"chat_template": QWEN2_TEMPLATE.read_text(encoding="utf-8"), "preprocessing": "videollama2"}
    write_without_weights(folder, config, max_new_tokens=2048, feature_extractor=extractor, **settings)


def whisper_large_v2() -> WhisperConfig:
    return WhisperConfig(
        num_mel_bins=80,
        d_model=1280,
        encoder_layers=32,
        encoder_attention_heads=20,
        encoder_ffn_dim=5120,
        decoder_layers=32,
        decoder_attention_heads=20,
        decoder_ffn_dim=5120,
    )


# The Q-Former of video-SALMONN: bert-base with two layers, 30 queries in 5 s.
QFORMER = {
    "resampler_type": "causal_qformer",
    "resampler_hidden_size": 768,
    "resampler_heads": 12,
    "resampler_layers": 2,
    "resampler_intermediate_size": 3072,
    "resampler_dropout": 0.1,
    "queries_per_window": 30,
    "window_seconds": 5.0,
    "window_frames": None,
}
TWO_A_SECOND = {"sampling": "fps", "fps": 2.0}


def write_favor(folder: Path) -> None:
    """The paper's parts and a speech tower with FAVOR's connector, laid out by time: 36 rows a step."""
    config = SAVEnVideoConfig(text_config=qwen2_7b(), speech_config=whisper_large_v2(), **QFORMER)
    write_without_weights(folder, config, max_new_tokens=512, **TWO_A_SECOND)


def write_video_salmonn(folder: Path) -> None:
    """What `saven convert video-salmonn` writes with its default components: Vicuna 13B v1.5, three placeholders."""
    text = LlamaConfig(
        vocab_size=32_003,
        hidden_size=5120,
        intermediate_size=13_824,
        num_hidden_layers=40,
        num_attention_heads=40,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    ids = {"video_token_id": 32_000, "image_token_id": 32_001, "audio_token_id": 32_002}
    settings = {**QFORMER, **SALMONN_SETTINGS, **ids}
    config = SAVEnVideoConfig(text_config=text, speech_config=whisper_large_v2(), **settings)
    stops = {"eos_token_id": 2, "pad_token_id": 0}
    extractor = SAVEnVideoBeatsFeatureExtractor(patches_per_window=PATCHES_PER_WINDOW)
    settings = {"chat_template": CHAT_TEMPLATE, "feature_extractor": extractor, **TWO_A_SECOND}
    write_without_weights(folder, config, 512, stops, **settings)


QWEN2_STOPS = {"eos_token_id": [151_645, 151_643], "pad_token_id": 151_643}


def write_without_weights(
    folder: Path, config: SAVEnVideoConfig, max_new_tokens: int, stops: dict | None = None, **settings
) -> None:
    """Config, processor and generation config; `settings` are of the processor, `stops` Qwen2's if None."""
    config.save_pretrained(folder)
    # The tokenizer is the language model's own and comes with its weights; all else of the processor stands here.
    processor = SAVEnVideoProcessor.from_components(byte_tokenizer(), config=config, **settings)
    with tempfile.TemporaryDirectory() as whole:
        processor.save_pretrained(whole)
        for name in ("processor_config.json", "chat_template.jinja"):
            shutil.copyfile(Path(whole) / name, folder / name)
    GenerationConfig(
        **(stops or QWEN2_STOPS),
        suppress_tokens=[config.video_token_id, config.image_token_id, config.audio_token_id],
        max_new_tokens=max_new_tokens,
    ).save_pretrained(folder)


WRITERS = {
    "savenvideo-tiny": write_tiny,
    "savenvideo-7b": write_7b,
    "videollama2.1-7b-av": write_videollama2,
    "favor-7b": write_favor,
    "video-salmonn-13b": write_video_salmonn,
}


def write_all(root: Path) -> None:
    """Write every folder below `root`, without the source files that a saved model carries: they stand in `src/`."""
    for name, write in WRITERS.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        write(root / name)
        for source in (root / name).glob("*.py"):
            source.unlink()
        for path in (root / name).glob("*config.json"):
            # Any release in range writes the same folder but for its own version.
            settings = json.loads(path.read_text())
            settings.pop("transformers_version", None)
            path.write_text(json.dumps(settings, indent=2) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the folders are what would be written")
    if not parser.parse_args().check:
        write_all(HERE)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        write_all(Path(scratch))
        stale = [
            path.relative_to(scratch).as_posix()
            for path in sorted(Path(scratch).rglob("*"))
            if path.is_file()
            and not (
                (HERE / path.relative_to(scratch)).is_file()
                and filecmp.cmp(path, HERE / path.relative_to(scratch), shallow=False)
            )
        ]
    for name in stale:
        print(f"stale: hub_configs/{name}; run python hub_configs/build_configs.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
