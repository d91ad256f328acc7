"""The answer rules of published evaluation scripts, quirks included, so that our figures can stand beside theirs.

Each rule does what its script does, letter by letter; what is odd about it is said in its docstring. None of them is
recommended: they are reported beside the strict rules of `parsing`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence


# ---------------------------------------------------------------------------------------------------------------------
# Video-MME, `eval_your_results.py` (as of June 2024)

# The script lists eight phrases, but two commas are missing, so that four of them are glued to two that nobody says.
_VIDEOMME_PREFIXES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option isThe correct option is",
    "Best answer:Best option:",
)


def videomme_letter(response: str) -> str:
    """The letter that Video-MME's script takes an answer for; "" if none.

    Quirks: the first capital A, B, C or D anywhere counts, also inside of a word ("According to" is A, "Based on" is
    B, "Definitely" is D); small letters never count; four of the eight phrases it means to remove are never removed.
    The script divides by the answers that it finds a letter in, not by all questions: see
    `VideoMME.figures`.
    """
    text = response.strip()
    for prefix in _VIDEOMME_PREFIXES:
        text = text.replace(prefix, "")
    found = re.search("[ABCD]", text)
    return found[0] if found else ""


# ---------------------------------------------------------------------------------------------------------------------
# VideoLLaMA 2

_DIGITS = dict(zip("1234567890", "one two three four five six seven eight nine zero".split(), strict=True))


def videollama2_videomme_letter(output: str, options: Sequence[str]) -> str:
    """The letter that VideoLLaMA 2 writes down for Video-MME.

    Args:
        options: as published, "A. ...".

    Quirks: "answer" is removed wherever it stands, then the first capital A to D anywhere counts; failing that, the
    first option whose text occurs in the answer, of which text the last character is cut off, full stop or not;
    failing that, C.

    Raises:
        ValueError: an option that is not "A. ...", on which the script stops too.
    """
    texts = []
    for option in options:
        found = re.findall(r"[A-D]\. (.*).", option)
        if not found:
            raise ValueError(f"The option {option!r} is not written as 'A. ...'.")
        texts.append(found[0])
    output = output.replace("answer", "").replace("Answer", "")
    found = re.search("[A-D]", output)
    if found:
        return found[0]
    for letter, text in zip("ABCD", texts, strict=False):
        if text.lower() in output.lower() or _DIGITS.get(text, text).lower() in output.lower():
            return letter
    return "C"


def videollama2_exact(prediction: str, answer: str) -> bool:
    """VideoLLaMA 2 on MUSIC-AVQA and Clotho-AQA: equal words, whatever the case, without full stops and blanks at the
    end of the prediction.

    Quirks: a blank in front, an underscore or an article makes an answer wrong: "acoustic guitar" is not
    "acoustic_guitar", and "3" is not "three".
    """
    return answer.upper() == prediction.rstrip(" .").upper()


def videollama2_clotho_binary(prediction: str, answer: str) -> bool | None:
    """VideoLLaMA 2's second figure on Clotho-AQA, over questions answered by yes or no; None for others.

    Quirk: nothing is stripped here, so "Yes." is right in the first figure and wrong in this one.
    """
    return prediction.lower() == answer.lower() if answer.lower() in ("yes", "no") else None


VOCALSOUND = ("Laughter", "Sigh", "Cough", "Throat clearing", "Sneeze", "Sniff")
TUT2017 = (
    "beach", "bus", "cafe or restaurant", "car", "city center", "forest path", "grocery store", "home", "library",
    "metro station", "office", "park", "residential area", "train", "tram",
)  # fmt: skip


def videollama2_contains(prediction: str, answer: str, classes: Sequence[str]) -> bool:
    """VideoLLaMA 2 on VocalSound and TUT2017: the class occurs in the prediction, or the prediction is its letter.

    Args:
        classes: `VOCALSOUND` or `TUT2017`, of which the first is A.

    Quirks: part of a word is enough ("car" is in "scary"), a prediction that lists all classes is always right, and a
    letter is one only without a full stop.
    """
    said, wanted = prediction.strip().upper(), answer.upper()
    if wanted in said:
        return True
    letter = re.fullmatch(r"\(([A-Z])\)|([A-Z])", said)
    at = ord(letter[1] or letter[2]) - ord("A") if letter else len(classes)
    return at < len(classes) and wanted in classes[at].upper()


# ---------------------------------------------------------------------------------------------------------------------
# MUSIC-AVQA: a closed set of answers

MUSIC_INSTRUMENTS = (
    "accordion", "acoustic_guitar", "bagpipe", "banjo", "bassoon", "cello", "clarinet", "congas", "drum",
    "electric_bass", "erhu", "flute", "guzheng", "piano", "pipa", "saxophone", "suona", "trumpet", "tuba", "ukulele",
    "violin", "xylophone",
)  # fmt: skip
MUSIC_NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "more than ten",
)  # fmt: skip
MUSIC_ANSWERS = (
    *MUSIC_INSTRUMENTS, *MUSIC_NUMBERS, "left", "right", "middle", "indoor", "outdoor", "simultaneously", "yes", "no",
)  # fmt: skip

_SYNONYMS = {
    "at same time": "simultaneously", "simultaneous": "simultaneously", "both": "simultaneously",
    "center": "middle", "centre": "middle", "sax": "saxophone", "conga": "congas", "none": "zero",
    "inside": "indoor", "outside": "outdoor", "yeah": "yes", "yep": "yes", "nope": "no",
}  # fmt: skip
_BY_WORDS = {answer.replace("_", " "): answer for answer in MUSIC_ANSWERS}


def music_answer(text: str) -> str | None:
    """One of `MUSIC_ANSWERS` that a free answer means, by a documented normaliser (our decision; no script has one).

    Case, punctuation, underscores and hyphens, articles, plurals ("guitars"), digits ("3", "12"), a few synonyms
    (`_SYNONYMS`); "yes" and "no" by the first word; and in a sentence the one answer that it names. A sentence that
    names two, or none, means nothing.
    """
    words = re.sub(r"[^\w\s]|_", " ", unicodedata.normalize("NFKC", text).casefold()).split()
    words = [_single(word) for word in words if word not in ("a", "an", "the")]
    whole = " ".join(words)
    whole = _SYNONYMS.get(whole, whole)
    if whole in _BY_WORDS:
        return _BY_WORDS[whole]
    if words and _SYNONYMS.get(words[0], words[0]) in ("yes", "no"):
        return _SYNONYMS.get(words[0], words[0])
    padded = f" {whole} "
    found: list[str] = []
    for phrase, answer in sorted({**_SYNONYMS, **_BY_WORDS}.items(), key=lambda one: -len(one[0])):
        if answer not in ("yes", "no") and f" {phrase} " in padded:
            found.append(answer)
            padded = padded.replace(f" {phrase} ", " | ")  # "ten" of "more than ten" is no second answer
    answers = set(found) - ({"one"} if len(set(found)) > 1 else set())  # "the left one"
    return answers.pop() if len(answers) == 1 else None


def _single(word: str) -> str:
    """A word without what digits and plurals add to it."""
    if word.isascii() and word.isdigit():
        return MUSIC_NUMBERS[int(word)] if len(word) <= 2 and int(word) <= 10 else "more than ten"
    if word not in _BY_WORDS and word.endswith("s") and (word[:-1] in _BY_WORDS or word[:-1] in ("guitar",)):
        return word[:-1]
    return word
