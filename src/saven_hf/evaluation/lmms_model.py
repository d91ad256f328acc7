"""The model that lmms-eval runs; imported by its registry alone, since it needs lmms-eval."""

from __future__ import annotations

from pathlib import Path

from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms

from .adapters import Asked
from .benchmarks import Item, Pair
from .catalog import open_adapter
from .controls import PLAIN


class SAVEnLmms(lmms):
    """Any model that `open_adapter` opens, in lmms-eval: sound is heard, and questions are batched.

    Args:
        pretrained: folder or Hub id.
        batch_size, device, max_new_tokens, sampling, num_frames, fps, max_frames: as for `open_adapter`.
    """

    is_simple = False

    def __init__(
        self, pretrained: str | None = None, batch_size=8, device: str | None = None, max_new_tokens=None, **sampling
    ):
        super().__init__()
        numbers = {"num_frames": int, "fps": float, "max_frames": int}
        sampling = {name: numbers.get(name, str)(value) for name, value in sampling.items() if value is not None}
        self.adapter = open_adapter(
            pretrained,
            device,
            batch_size=int(batch_size),
            max_new_tokens=None if max_new_tokens is None else int(max_new_tokens),
            **sampling,
        )

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answers, in order; media are watched, and answered about, as many at a time as `saven eval` takes."""
        answers: list[str] = []
        asked: list[Asked] = []
        watched, current, media = None, None, 0
        for request in requests:
            _, to_messages, options, doc_id, task, split = request.args
            longest = int(options.get("max_new_tokens", self.adapter.max_new_tokens))
            files, prompt = _parts(to_messages(self.task_dict[task][split][doc_id]))
            if longest != self.adapter.max_new_tokens or (files != current and media == self.adapter.media_at_once):
                answers += self.adapter.answer(asked)
                self.adapter.max_new_tokens, asked, current, media = longest, [], None, 0
            if files != current:
                paths = [Path(file) for file in files]
                watched = self.adapter.watch(paths[0] if len(paths) == 1 else Pair(*paths), PLAIN)
                current, media = files, media + 1
            asked.append(Asked(watched, prompt, Item(f"{task}-{doc_id}", str(files), "words", prompt, "-")))
        return answers + self.adapter.answer(asked)

    def generate_until_multi_round(self, requests):
        raise NotImplementedError("Tasks written by saven_hf have one round: use a task of `generate_until`.")

    def loglikelihood(self, requests):
        raise NotImplementedError(
            "Tasks written by saven_hf generate; log-likelihoods are a protocol of `saven eval`."
        )


def _parts(messages: list[dict]) -> tuple[list[str], str]:
    """The media and the text of a chat of one turn."""
    (message,) = messages
    files = [part["url"] for part in message["content"] if part["type"] != "text"]
    return files, "\n".join(part["text"] for part in message["content"] if part["type"] == "text")
