"""Writes the model folders of this directory: `python hub_configs/build_configs.py [--check]`.

`savenvideo-7b` is the paper's model without weights (`saven init-7b` puts them together). Numbers that the paper gives
are marked; all others are our decision. `savenvideo-tiny`, the embedded default, is no work of this script:
`saven train tiny` makes it.
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import sys
import tempfile
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config

from saven_hf import SAVEnVideoConfig, SAVEnVideoProcessor
from saven_hf.hub import save_plain


HERE = Path(__file__).parent


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


def write_7b(folder: Path) -> None:
    """SigLIP-so400m-384, BEATs iter3+ and Qwen2-7B-Instruct, as in the paper (5, implementation details)."""
    text = Qwen2Config(
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
    config = SAVEnVideoConfig(text_config=text)
    # The tokenizer is Qwen2's own and comes with its weights; all else of the processor stands here.
    processor = SAVEnVideoProcessor.from_components(byte_tokenizer(), config=config)
    with tempfile.TemporaryDirectory() as whole:
        processor.save_pretrained(whole)
        for name in ("processor_config.json", "chat_template.jinja"):
            shutil.copyfile(Path(whole) / name, folder / name)
    generation = GenerationConfig(
        eos_token_id=[151_645, 151_643],
        pad_token_id=151_643,
        suppress_tokens=[config.video_token_id, config.image_token_id, config.audio_token_id],
        max_new_tokens=512,
    )
    save_plain(folder, config, generation)


WRITERS = {"savenvideo-7b": write_7b}


def write_all(root: Path) -> None:
    for name, write in WRITERS.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        write(root / name)


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
