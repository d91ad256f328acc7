"""Metrics of running text, computed by the libraries that the field uses: jiwer and pycocoevalcap."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from .statistics import bootstrap, mean_interval


class MetricUnavailableError(ImportError):
    """A metric's library is not installed."""


# ---------------------------------------------------------------------------------------------------------------------
# Speech


@lru_cache
def _english():
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishTextNormalizer({})


def normalise_speech(text: str) -> str:
    """As Whisper's evaluation writes English: lower case, no punctuation, contractions and numbers in one way; its
    table of British and American spellings is a file of the checkpoint and left out."""
    return _english()(text)


def count_word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """(errors, words of the reference) of one utterance, after `normalise_speech`.

    Raises:
        MetricUnavailableError: jiwer is not installed.
    """
    try:
        import jiwer
    except ImportError as error:
        raise MetricUnavailableError("Word error rates need jiwer: pip install 'saven-hf[eval]'.") from error
    wanted, said = normalise_speech(reference).split(), normalise_speech(hypothesis).split()
    if not wanted:
        return len(said), 0
    if not said:  # jiwer takes an empty hypothesis, but says nothing about it in some releases
        return len(wanted), len(wanted)
    found = jiwer.process_words(" ".join(wanted), " ".join(said))
    return found.substitutions + found.deletions + found.insertions, len(wanted)


def word_error_rate(errors: Sequence[int], words: Sequence[int], clusters: Sequence) -> dict[str, Any]:
    """Errors over words of the whole corpus, with an interval over clusters."""
    found = bootstrap(list(zip(errors, words, strict=True)), clusters, lambda sums: sums[..., 0] / sums[..., 1])
    return found._asdict()


# ---------------------------------------------------------------------------------------------------------------------
# Captions


def caption_metrics(
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    clusters: Sequence,
    spice: bool = False,
    meteor: bool = True,
) -> dict[str, Any]:
    """BLEU-1 to 4, ROUGE-L and CIDEr as pycocoevalcap computes them, METEOR where there is Java, SPICE and SPIDEr on
    request.

    Args:
        captions: one for each medium; may be empty texts.
        references: those of each medium.
        clusters: what intervals are over.
        meteor: also METEOR, where there is Java, which takes seconds to start.
        spice: also SPICE, which fetches Stanford's models once, and SPIDEr, the mean of SPICE and CIDEr.

    Returns:
        BLEU of the corpus as numbers, all others as intervals over the media's scores (CIDEr's document frequencies
        stay those of all references); "tokenizer": "ptb", as published figures use it, with Java and where
        pycocoevalcap's folder can be written to, else "simple": lower case without punctuation, which moves figures a
        little. Empty for no captions.

    Raises:
        MetricUnavailableError: pycocoevalcap is not installed, or SPICE is asked for without Java.
    """
    if not captions:
        return {}
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
    except ImportError as error:
        raise MetricUnavailableError("Caption metrics need pycocoevalcap: pip install 'saven-hf[eval]'.") from error
    java = shutil.which("java") is not None
    if spice and not java:
        raise MetricUnavailableError("SPICE is a Java program: install a Java runtime, or leave SPICE out.")
    truth, said, tokenizer = _tokenized(captions, references, java)
    found: dict[str, Any] = {"captions": len(captions), "tokenizer": tokenizer}
    bleu, _ = Bleu(4).compute_score(truth, said, verbose=0)
    found |= {f"bleu_{order}": value for order, value in enumerate(bleu, 1)}
    scores = {"rouge_l": Rouge().compute_score(truth, said)[1]}
    if len(captions) > 1:  # a corpus of one has no document frequencies
        scores["cider"] = Cider().compute_score(truth, said)[1]
    if tokenizer == "ptb" and meteor:
        from pycocoevalcap.meteor.meteor import Meteor

        scores["meteor"] = Meteor().compute_score(truth, said)[1]
    if spice:
        from pycocoevalcap.spice.spice import Spice

        scores["spice"] = [one["All"]["f"] for one in Spice().compute_score(truth, said)[1]]
        if "cider" in scores:
            scores["spider"] = [(one + two) / 2 for one, two in zip(scores["spice"], scores["cider"], strict=True)]
    return found | {name: mean_interval(list(values), clusters)._asdict() for name, values in scores.items()}


def _tokenized(captions, references, java: bool) -> tuple[dict, dict, str]:
    truth = {at: list(those) for at, those in enumerate(references)}
    said = {at: [caption] for at, caption in enumerate(captions)}
    if java and _ptb_writable():
        return *map(_ptb, (truth, said)), "ptb"
    return *({at: list(map(_simple, texts)) for at, texts in part.items()} for part in (truth, said)), "simple"


def _ptb_writable() -> bool:
    """Whether the tokenizer can put its texts where it does: beside its own file, which may be the system's."""
    from pycocoevalcap.tokenizer import ptbtokenizer

    return os.access(os.path.dirname(ptbtokenizer.__file__), os.W_OK)


def _ptb(texts: dict[int, list[str]]) -> dict[int, list[str]]:
    from pycocoevalcap.tokenizer import ptbtokenizer

    # A line of its own for each text, also where a text is empty or has several lines.
    lines = {at: [{"caption": " ".join(text.split()) or "."} for text in some] for at, some in texts.items()}
    return ptbtokenizer.PTBTokenizer().tokenize(lines)


def _simple(text: str) -> str:
    return " ".join(re.findall(r"[\w']+", text.lower()))


# ---------------------------------------------------------------------------------------------------------------------
# Short answers

_NUMBERS = dict(zip("zero one two three four five six seven eight nine ten".split(), map(str, range(11)), strict=True))


def normalise_answer(text: str) -> str:
    """As VQA's evaluation writes answers: lower case, numbers as digits, without articles and punctuation (its table
    of contractions is left out)."""
    words = re.sub(r"(?<=\d),(?=\d)", "", text.lower()).replace("'", "")
    words = re.sub(r"[^\w\s.:%$]|[.:](?!\d)", " ", words).split()
    return " ".join(_NUMBERS.get(word, word) for word in words if word not in ("a", "an", "the"))


def vqa_accuracy(answer: str, references: Sequence[str]) -> float:
    """VQA's soft accuracy: min(1, people who said so / 3), averaged over leaving each of the people out.

    With fewer than four references: 1 if the answer is any of them.
    """
    said = normalise_answer(answer)
    agree = [normalise_answer(reference) == said for reference in references]
    if len(references) < 4:
        return float(any(agree))
    return sum(min(1.0, (sum(agree) - one) / 3) for one in agree) / len(agree)
