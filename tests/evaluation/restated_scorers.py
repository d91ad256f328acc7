"""What the published scorers of Video-MME and MUSIC-AVQA compute, restated from reading them; no code of ours is used.

Video-MME: `eval_your_results.py` as of June 2024. MUSIC-AVQA: `test()` of its authors' `main_avst.py` for the columns,
VideoLLaMA 2's comparison of words for the hits.
"""

import json
from collections import defaultdict


# Of eight phrases that are cut out wherever they stand, two commas are missing, which glues two pairs.
_CUT = [
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option is" + "The correct option is",
    "Best answer:" + "Best option:",
]


def _first_capital(response):
    rest = response.strip()
    for phrase in _CUT:
        rest = "".join(rest.split(phrase))
    for character in rest:
        if character in "ABCD":
            return character
    return ""


def video_mme(videos):
    """Percent right of the answers that a letter is found in, by duration and over all, each by kind.

    Args:
        videos: the template in which results are handed in.
    """
    right, answered = defaultdict(int), defaultdict(int)
    for video in videos:
        for question in video["questions"]:
            said = _first_capital(question["response"])
            if not said:
                continue
            kinds = [
                ("accuracy",),
                ("domain", video["domain"]),
                ("sub_category", video["sub_category"]),
                ("task_type", question["task_type"]),
            ]
            for part in (video["duration"], "overall"):
                for kind in kinds:
                    answered[(part, *kind)] += 1
                    right[(part, *kind)] += said == question["answer"]
    return {"/".join(key): 100 * right[key] / answered[key] for key in sorted(answered)}


def music_avqa(rows, predictions):
    """The table's 13 columns, in percent: each kind of question, and averages over all questions of a modality."""
    hits = defaultdict(list)
    for row, prediction in zip(rows, predictions, strict=True):
        said = prediction
        while said.endswith((" ", ".")):
            said = said[:-1]
        hits[tuple(json.loads(row["type"]))].append(said.upper() == row["anser"].upper())
    found, everything = {}, []
    for modality, short in (("Audio", "A"), ("Visual", "V"), ("Audio-Visual", "AV")):
        together = []
        for of, kind in hits:
            if of == modality:
                found[f"{short} {kind}"] = 100 * sum(hits[of, kind]) / len(hits[of, kind])
                together += hits[of, kind]
        found[f"{short} Avg"] = 100 * sum(together) / len(together)
        everything += together
    return found | {"All": 100 * sum(everything) / len(everything)}
