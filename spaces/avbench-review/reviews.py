"""What people decided about questions: a file that only grows, and what follows from it."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any


VERDICTS = ("keep", "fix", "drop")
# The paper's (appendix B), and one for all else.
REASONS = ("grammar or format", "redundancy or leakage", "one modality only", "another")
LETTERS = "ABCD"
_MENDABLE = ("question", "options", "answer")


class ReviewError(ValueError):
    """A decision that cannot be stored; the message says what to do."""


class Reviews:
    """Decisions in a JSONL file, one a line; the last on a question counts.

    {"id", "verdict", "reason", "comment", "changes", "reviewer", "time"}; `changes` has the columns that were mended.

    Args:
        path: of the file; what it holds already is read.

    Raises:
        ReviewError: a line that is no decision.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._lock = threading.Lock()
        self._last: dict[str, dict[str, Any]] = {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.is_file():
            return
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.decode("utf-8").splitlines(), 1):
            try:
                review = json.loads(line)
                self._last[review["id"]] = review
            except (ValueError, TypeError, KeyError):
                raise ReviewError(f"{self.path}:{number} is no decision: mend the file, or move it away.") from None
        if len(whole) < len(content):  # the writer was stopped within a line, which nobody was told is stored
            with open(self.path, "r+b") as file:
                file.truncate(len(whole))

    def __len__(self) -> int:
        return len(self._last)

    def get(self, question_id: str) -> dict[str, Any] | None:
        """The last decision on a question."""
        return self._last.get(question_id)

    def add(
        self,
        row: Mapping[str, Any],
        verdict: str | None,
        reviewer: str,
        reason: str | None = None,
        comment: str = "",
        changes: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Store a decision; it is on disk when this returns.

        Args:
            row: the question.
            verdict: one of `VERDICTS`.
            reviewer: a name.
            reason: one of `REASONS`; needed unless the question is kept.
            comment: in words; needed for the reason "another".
            changes: columns as they should read; those that are as before are left out. Only for "fix".

        Raises:
            ReviewError: something is missing, or does not go together.
        """
        reviewer, comment = (reviewer or "").strip(), (comment or "").strip()
        changes = {name: value for name, value in (changes or {}).items() if name in _MENDABLE and value != row[name]}
        if not reviewer:
            raise ReviewError("Write your name first: every decision has a reviewer.")
        if verdict not in VERDICTS:
            raise ReviewError("Choose one of keep, fix, drop.")
        if verdict == "keep":
            reason = None
        elif reason not in REASONS:
            raise ReviewError(f"Say why you would {verdict} it: choose a reason.")
        if reason == "another" and not comment:
            raise ReviewError("The reason is another one: write it as a comment.")
        if verdict == "fix":
            _check_changes(row, changes)
        elif changes:
            raise ReviewError(f"The question was mended, but the verdict is {verdict}: choose fix, or take it back.")
        review = {
            "id": row["id"],
            "verdict": verdict,
            "reason": reason,
            "comment": comment,
            "changes": changes,
            "reviewer": reviewer,
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        with self._lock, open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(review, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
            self._last[row["id"]] = review
        return review

    def next_open(self, ids: list[str], after: int = -1) -> int | None:
        """Number of the next question without a decision, from the one behind `after` around; None if all have one."""
        order = [*range(after + 1, len(ids)), *range(0, after + 1)]
        return next((at for at in order if ids[at] not in self._last), None)

    def summary(self, ids: list[str]) -> str:
        """ "3 of 46 decided: 2 keep, 1 drop" """
        counts = Counter(self._last[one]["verdict"] for one in ids if one in self._last)
        kinds = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
        return f"{sum(counts.values())} of {len(ids)} decided" + (f": {kinds}" if kinds else "")

    def accepted(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Rows that were kept or mended, as they should read, without their videos."""
        for row in rows:
            review = self._last.get(row["id"])
            if review is not None and review["verdict"] != "drop":
                text = {name: value for name, value in row.items() if name != "video"}
                yield {**text, **review["changes"], "review": review}


def _check_changes(row: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    if not changes:
        raise ReviewError("Nothing was mended: edit the question, its options or the answer, or choose keep or drop.")
    after = {**row, **changes}
    if not after["question"].strip():
        raise ReviewError("The question is empty.")
    options = [" ".join(option.split()).casefold() for option in after["options"]]
    if not all(options) or len(set(options)) < len(options):
        raise ReviewError("The four options must all be there and differ.")
    if after["answer"] not in tuple(LETTERS[: len(options)]):
        raise ReviewError(f"The right answer is one of {', '.join(LETTERS[: len(options)])}.")
