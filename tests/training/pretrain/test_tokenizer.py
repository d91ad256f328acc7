"""The tokenizer of the world's language."""

import pytest

from saven_hf.savenvideo.times import format_time
from saven_hf.training.pretrain.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(scenes=200)


@pytest.mark.parametrize("at", [0, 3_400_000, 59_900_000, 359_900_000, 599_900_000])
def test_a_time_is_three_tokens_whatever_it_is(tokenizer, at):
    for text in (format_time(at), f" {format_time(at)}"):
        pieces = [tokenizer.decode([token]) for token in tokenizer(text).input_ids]
        hours, seconds = text[:-6], text[-6:-4]
        assert pieces == [hours, seconds, text[-4:]]


@pytest.mark.parametrize(
    "text", ["a red circle moves left", "What is heard?\nA. silence", "Où est-ce?  3.4675 s 東京", "01:02:03.4567", ""]
)
def test_no_text_is_out_of_reach(tokenizer, text):
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_words_of_the_world_are_single_tokens(tokenizer):
    ids = tokenizer(" a red circle and a low buzz on a striped background").input_ids
    assert len(ids) == 11


def test_turn_markers_are_special(tokenizer):
    ids = tokenizer("<|im_start|>user\n<|im_end|>").input_ids
    assert ids[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == "user\n"
