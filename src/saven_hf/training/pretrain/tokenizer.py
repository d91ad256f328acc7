"""A small byte-pair tokenizer of the world's language."""

from __future__ import annotations

from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ...savenvideo.times import format_time
from ...world.conversations import TURNS, make_conversation
from ...world.splits import sample_scene


# "00:01:13.500" becomes hours and minutes, seconds, milliseconds: three tokens, the same cut for every time, so that
# one number is one choice. Words keep their space, everything else stands alone.
PIECES = r" ?\d\d:\d\d:|\d\d(?=\.\d{3})|\.\d{3}| ?\p{L}+|\d| ?[^\s\p{L}\p{N}]|\s+"


def train_tokenizer(scenes: int = 4000, vocab_size: int = 1024, longest_minutes: int = 10) -> PreTrainedTokenizerFast:
    """Train byte-pair merges on conversations about scenes of the split `train`.

    Args:
        scenes: how many to read.
        vocab_size: most entries, of which 256 are bytes: no text is out of its reach.
        longest_minutes: times up to this many minutes become three tokens; later ones a few more.

    Returns:
        A tokenizer with ChatML's special tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(scenes, longest_minutes), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=4096,
    )


def _texts(scenes: int, longest_minutes: int) -> Iterator[str]:
    yield from ("system\n", "user\n", "assistant\n") * 100
    kinds = dict.fromkeys(TURNS, 1.0)
    del kinds["range"]  # worded as "open" is
    for seed in range(scenes):
        for turn in make_conversation(sample_scene(seed), kinds, turns=6):
            yield turn.user
            yield turn.assistant
    # Every second and every tenth of one, and every minute with and without a space before it.
    for at in range(longest_minutes * 60 * 10):
        yield f" {format_time(at * 100_000)}"
        yield format_time(at * 100_000)
