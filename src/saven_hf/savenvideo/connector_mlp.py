"""The paper's ablation: no attention between the encoders and the language model."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .connector_base import Connector, DatedTokens, Questions, WindowIndex, in_order
from .layout import NO_TIME


class MLPConnector(Connector):
    """No attention: the dated tokens themselves, in the order that `token_order` names.

    "mlp" keeps every token (the paper's ablation read literally), "mlp_pool" averages a window's tokens to the
    budget of the resampler (our decision).
    """

    def resample(self, tokens: DatedTokens, tlp, windows: WindowIndex, questions: Questions | None):
        """Window tokens, a list of `(n, D)`; questions never take part here."""
        rows = self._dated_rows(tokens, tlp, windows)
        window_tokens = []
        for window in range(len(windows.start)):
            entries, dates = [], []
            for _, states, hidden_time, times, valid in rows:
                keep = valid[window]
                content = states[window][keep]
                if self.config.has_time_tokens and windows.start[window] != NO_TIME:
                    content = torch.cat([hidden_time[window][keep][:, None], content], dim=1)
                entries.extend(content)
                dates.append(times[window][keep])
            sequence = in_order(entries, torch.cat(dates), self.config.token_order)
            if self.config.resampler_type == "mlp_pool":
                sequence = F.adaptive_avg_pool1d(sequence.T[None], self.config.queries_per_window)[0].T
            window_tokens.append(self.to_language_model(sequence))
        return window_tokens, None
