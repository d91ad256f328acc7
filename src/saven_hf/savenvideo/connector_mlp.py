"""The paper's ablation: no attention between the encoders and the language model."""

from __future__ import annotations

import torch

from .connector_base import Connector, DatedTokens, Questions, WindowIndex, in_order, pooled_over_time
from .layout import NO_TIME, Window
from .tower_features import TowerFeatures


class MLPConnector(Connector):
    """No attention: the dated tokens themselves, in the order that `token_order` names.

    "mlp" keeps every token (the paper's ablation read literally), "mlp_pool" averages a window's tokens to the
    budget of the resampler (our decision).
    """

    def resample(self, tokens: DatedTokens, tlp, windows: WindowIndex, questions: Questions | None):
        """Window tokens, a list of `(n, D)`; questions never take part here."""
        # Unbound once: the gradient of one window taken by its index would be as large as that of all of them.
        rows = [
            (states.unbind(), hidden_time.unbind(), times, valid)
            for _, states, hidden_time, times, valid in self._dated_rows(tokens, tlp, windows)
        ]
        window_tokens = []
        for window in range(len(windows.start)):
            entries, dates = [], []
            for states, hidden_time, times, valid in rows:
                keep = valid[window]
                content = states[window][keep]
                if self.config.has_time_tokens and windows.start[window] != NO_TIME:
                    content = torch.cat([hidden_time[window][keep][:, None], content], dim=1)
                entries.extend(content)
                dates.append(times[window][keep])
            sequence = in_order(entries, torch.cat(dates), self.config.token_order)
            if self.config.resampler_type == "mlp_pool":
                sequence = pooled_over_time(sequence, self.config.queries_per_window)
            window_tokens.append(self.to_language_model(sequence))
        return window_tokens, None

    def token_times(self, window: Window, medium: TowerFeatures) -> torch.Tensor:
        """That of its frame or column; of a pooled token the mean over what it is the mean of."""
        kinds = [
            (medium.frame_times[window.frames], medium.picture),
            (medium.column_times[window.columns], medium.sound),
        ]
        if self.config.speech_config is not None:
            kinds.append((medium.speech_times[window.speech], medium.speech))
        dates = torch.cat([times for times, _ in kinds])
        dated = int(self.config.has_time_tokens and window.timed)
        entries = [times.double()[:, None].repeat(1, dated + states.shape[1]) for times, states in kinds]
        sequence = in_order([entry for rows in entries for entry in rows], dates, self.config.token_order)
        if self.config.resampler_type == "mlp_pool":
            sequence = pooled_over_time(sequence[:, None], self.config.queries_per_window)[:, 0]
        return sequence
