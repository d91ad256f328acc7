"""Which moment each token of a connector stands for."""

import pytest
import torch
from kinds import KINDS
from test_connectors import connect, shaken_model

from saven_hf.savenvideo.layout import TokenLayout, Window
from saven_hf.savenvideo.tower_features import TowerFeatures


DURATION = 6_000_000


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


def medium(frames=6, columns=12, late=0) -> TowerFeatures:
    generator = torch.Generator().manual_seed(0)
    return TowerFeatures(
        picture=torch.randn(frames, 4, 16, generator=generator),
        frame_times=torch.arange(frames) * 1_000_000 + 500_000 + late,
        sound=torch.randn(columns, 8, 16, generator=generator),
        column_times=torch.arange(columns) * 480_000 + 87_500 + late,
        duration=DURATION + late,
        encoder_hash="",
        preprocessing_hash="",
    )


def windows_of(model, one: TowerFeatures) -> list[Window]:
    layout = TokenLayout.from_config(model.config)
    return layout.plan(one.frame_times.tolist(), one.column_times.tolist(), one.duration)


@pytest.mark.parametrize("columns", [12, 0])
@pytest.mark.parametrize("kind", KINDS)
def test_every_token_has_a_moment_in_its_window(kind, columns):
    model, one = shaken_model(**KINDS[kind]), medium(columns=columns)
    windows = windows_of(model, one)
    found = [model.model.resampler.token_times(window, one) for window in windows]
    layout = TokenLayout.from_config(model.config)
    assert sum(map(len, found)) == layout.num_window_tokens(
        one.frame_times.tolist(), one.column_times.tolist(), one.duration
    )
    for window, times in zip(windows, found, strict=True):
        assert times.dtype == torch.float64 and window.start <= times.min() and times.max() <= window.end
        if model.config.token_order == "time":
            assert torch.equal(times, times.sort().values)


@pytest.mark.parametrize("kind", ["mlp", "mlp_pool", "stc", "stc as published", "stc on a budget"])
def test_a_moment_is_when_what_a_token_is_made_of_happened(kind):
    """What changes with a frame, or a column, stands for it, and for as much else as the mean is over."""
    model, one = shaken_model(**KINDS[kind]), medium()
    window = Window(0, DURATION, list(range(6)), list(range(12)))
    times = model.model.resampler.token_times(window, one)
    media = (one.picture, one.frame_times, one.sound, one.column_times)
    [before] = connect(model, *media, duration=DURATION).window_tokens
    pooled, changes = kind in ("mlp_pool", "stc on a budget"), 0
    for states, dates in ((one.picture, one.frame_times), (one.sound, one.column_times)):
        for index, date in enumerate(dates.tolist()):
            kept = states[index].clone()
            states[index] += 1
            [after] = connect(model, *media, duration=DURATION).window_tokens
            states[index] = kept
            changed = times[((after - before).abs() > 1e-6).any(-1)]
            changes += len(changed)
            # A step of stc is two frames long, a pooled token as long as its share of the window.
            assert len(changed) and (changed - date).abs().max() <= (1_500_000 if pooled else 500_000), (date, changed)
    assert pooled or changes >= len(times) - (0 if model.config.time_fusion == "none" else 18)


def test_queries_stand_in_the_middles_of_equal_parts():
    for kind in ("avts", "causal_qformer"):
        model = shaken_model(**KINDS[kind] | {"queries_per_window": 4})
        times = model.model.resampler.token_times(Window(2_000_000, 4_000_000), medium())
        assert times.tolist() == [2_250_000, 2_750_000, 3_250_000, 3_750_000]


@pytest.mark.parametrize("kind", KINDS)
def test_a_later_clock_moves_them(kind):
    model, late = shaken_model(**{"window_seconds": 6.0} | KINDS[kind] | {"window_frames": None}), 60_000_000
    first, second = (
        torch.cat([model.model.resampler.token_times(window, one) for window in windows_of(model, one)])
        for one in (medium(), medium(late=late))
    )
    assert torch.equal(first + late, second)
