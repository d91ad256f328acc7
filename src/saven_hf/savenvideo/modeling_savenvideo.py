"""SAVEnVideo: a language model that watches, listens and knows when (paper section 4)."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    GenerationMixin,
    PreTrainedModel,
)
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling, ModelOutput
from transformers.processing_utils import Unpack
from transformers.quantizers import AutoQuantizationConfig
from transformers.utils import TransformersKwargs, can_return_tuple

from .configuration_savenvideo import SAVEnVideoConfig
from .connector_base import (
    BaseConnector,
    ConnectorOutput,
    PooledKeys,
    Questions,
    TemporalLinearProjection,
    WindowIndex,
)
from .connectors import CONNECTORS, build_connector
from .layout import PATCH_STEP_US, TokenLayout, Window
from .memory import VideoMemory
from .modeling_beats import SAVEnVideoBeatsModel
from .tower_features import TowerFeatures, is_tower_features
from .towers import (
    VISION_TOWERS,
    EncodedModality,
    WaitingColumns,
    WhisperEncoder,
    encode_audio,
    encode_frames,
    encode_speech,
    load_speech_tower,
    load_vision_tower,
)
from .weights import execution_device, is_sharded, weights_fingerprint, weights_state


# Placeholders of a model whose vocabulary does not know them yet, in the order of their config fields.
PLACEHOLDER_TOKENS = {"video_token_id": "<|video|>", "image_token_id": "<|image|>", "audio_token_id": "<|audio|>"}

MEDIA_INPUTS = (
    "pixel_values_videos",
    "frame_times",
    "frame_mask",
    "input_features",
    "input_features_mask",
    "audio_times",
    "query_times",
    "query_times_mask",
    "video_durations",
    "speech_features",
    "speech_features_mask",
    "speech_times",
)


@dataclass
class SAVEnVideoModelOutputWithPast(ModelOutput):
    r"""
    Args:
        last_hidden_state (`torch.Tensor` of shape `(batch, seq, hidden)`)
        past_key_values (`Cache`, *optional*)
        hidden_states, attentions (`tuple[torch.Tensor]`, *optional*): of the language model.
        video_hidden_states (`torch.Tensor` of shape `(media tokens of the batch, hidden)`, *optional*):
            what the media became, in text order.
    """

    last_hidden_state: torch.Tensor | None = None
    past_key_values: list[torch.Tensor] | None = None
    hidden_states: tuple[torch.Tensor] | None = None
    attentions: tuple[torch.Tensor] | None = None
    video_hidden_states: torch.Tensor | None = None


@dataclass
class SAVEnVideoCausalLMOutputWithPast(ModelOutput):
    r"""
    Args:
        loss (`torch.Tensor` of shape `()`, *optional*): next-token cross-entropy, when `labels` is given.
        logits (`torch.Tensor` of shape `(batch, seq or logits_to_keep, vocab)`)
        past_key_values, hidden_states, attentions, video_hidden_states: see [`SAVEnVideoModelOutputWithPast`].
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: list[torch.Tensor] | None = None
    hidden_states: tuple[torch.Tensor] | None = None
    attentions: tuple[torch.Tensor] | None = None
    video_hidden_states: torch.Tensor | None = None


class SAVEnVideoPreTrainedModel(PreTrainedModel):
    config_class = SAVEnVideoConfig
    base_model_prefix = "model"
    input_modalities = ("video", "image", "audio", "text")
    supports_gradient_checkpointing = True
    # The towers and the language model add their own layers to this list.
    _no_split_modules = ["TemporalLinearProjection", *sorted({kind.__name__ for kind in CONNECTORS.values()})]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True  # what runs after the prompt: single tokens with a static cache

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        std = self.config.initializer_range
        if isinstance(module, TemporalLinearProjection):
            # f(t) has entries of size one: this gives h(t) entries of size one as well.
            init.normal_(module.projection.weight, std=module.projection.in_features**-0.5)
        if isinstance(module, BaseConnector):
            module.initialise(std)

    @classmethod
    def is_custom_code(cls) -> bool:
        # For custom code transformers passes over modules without parameters of their own when it initialises, in case
        # that overwrites loaded weights. `init` never does, and SigLIP initialises its layers from such modules.
        return False

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, **kwargs):
        """`PreTrainedModel.from_pretrained`; towers come back frozen, and quantization leaves all but the language
        model in full precision unless `llm_int8_skip_modules` says otherwise."""
        quantization = kwargs.get("quantization_config")
        if isinstance(quantization, dict):
            quantization = AutoQuantizationConfig.from_dict(quantization)
        if getattr(quantization, "llm_int8_skip_modules", False) is None:
            quantization = copy.copy(quantization)
            # Names match from the start of a module's path, which the language-model head makes longer.
            names = cls._unquantized_modules
            quantization.llm_int8_skip_modules = [*names, *(f"model.{name}" for name in names)]
        if quantization is not None:
            kwargs["quantization_config"] = quantization
        loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded).freeze_towers()
        return loaded

    _unquantized_modules = (
        "vision_tower",
        "audio_tower",
        "speech_tower",
        "temporal_projection",
        "resampler",
        "lm_head",
    )

    def freeze_towers(self) -> None:
        """Take the gradient from the towers that the config freezes (loading weights gives it back to them)."""
        for tower, frozen in self.base_model._towers:
            if frozen:
                tower.requires_grad_(False)

    def train(self, mode: bool = True):
        """Training mode for all but the frozen towers: no dropout and no layer drop in what does not learn."""
        super().train(mode)
        if mode and hasattr(self.base_model, "vision_tower"):
            for tower, frozen in self.base_model._towers:
                tower.train(not frozen)
        return self


class SAVEnVideoModel(SAVEnVideoPreTrainedModel):
    """Towers, time, resampler and language model; hidden states out. See `SAVEnVideoForConditionalGeneration`."""

    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]

    def __init__(self, config: SAVEnVideoConfig):
        super().__init__(config)
        self.vision_tower = VISION_TOWERS[config.vision_config.model_type]._from_config(config.vision_config)
        self.audio_tower = SAVEnVideoBeatsModel._from_config(config.audio_config) if config.has_audio_tower else None
        speech = config.speech_config
        self.speech_tower = WhisperEncoder._from_config(speech) if speech is not None else None
        self.temporal_projection = TemporalLinearProjection(config) if config.uses_time else None
        self.resampler = build_connector(config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.layout = TokenLayout.from_config(config)
        self._known_towers = None
        self.post_init()
        self.freeze_towers()

    @property
    def towers(self) -> tuple[PreTrainedModel, ...]:
        """The vision tower, and audio and speech tower where there are such."""
        return tuple(tower for tower, _ in self._towers)

    @property
    def _towers(self) -> list[tuple[PreTrainedModel, bool]]:
        """Each tower, with whether the config freezes it."""
        towers = [
            (self.vision_tower, self.config.freeze_vision),
            (self.audio_tower, self.config.freeze_audio),
            (self.speech_tower, self.config.freeze_speech),
        ]
        return [(tower, frozen) for tower, frozen in towers if tower is not None]

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    @can_return_tuple
    def get_video_features(
        self,
        pixel_values_videos: torch.Tensor | None = None,
        frame_times: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        audio_times: torch.Tensor | None = None,
        query_times: torch.Tensor | None = None,
        query_times_mask: torch.Tensor | None = None,
        video_durations: torch.Tensor | None = None,
        speech_features: torch.Tensor | None = None,
        speech_features_mask: torch.Tensor | None = None,
        speech_times: torch.Tensor | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        r"""
        Tokens of every medium of a batch: picture, sound and time together.

        Args:
            pixel_values_videos (`torch.Tensor` of shape `(media, frames, 3, height, width)`, *optional*):
                uint8 (normalised here), or float that is already normalised.
            frame_times (`(media, frames)`, int64 microseconds, *optional*): `NO_TIME` or None where unknown.
            frame_mask (`(media, frames)`, bool, *optional*): which frames exist; the others are never looked at.
            input_features (`(media, windows, fbank_frames, mels)`, *optional*): normalised BEATs fbank.
            input_features_mask (`(media, windows, fbank_frames)`, bool, *optional*): which of its frames exist.
            audio_times (`(media, windows)`, int64 microseconds, *optional*): start of each audio window.
            query_times, query_times_mask (`(media, times)`, int64 microseconds and bool, *optional*):
                the times that the question names.
            video_durations (`(media,)`, int64 microseconds, *optional*): 0 where unknown.
            speech_features (`(media, windows, frames, mels)`, *optional*): log-mel features of the same sound, for
                a model with a speech tower.
            speech_features_mask, speech_times: as `input_features_mask` and `audio_times`, of its windows.

        Returns:
            `BaseModelOutputWithPooling`: `pooler_output` is a tuple of one `(tokens, hidden)` per medium;
            `last_hidden_state` (of the layer in use), `hidden_states` and `attentions` are the vision tower's over the
            valid frames (the audio tower's over the valid windows where there is no picture).
        """
        media = {name: value for name, value in locals().items() if name in MEDIA_INPUTS}
        return self._encode_media(media, {}, **kwargs)

    @can_return_tuple
    def get_audio_features(
        self,
        input_features: torch.Tensor,
        input_features_mask: torch.Tensor | None = None,
        audio_times: torch.Tensor | None = None,
        query_times: torch.Tensor | None = None,
        query_times_mask: torch.Tensor | None = None,
        video_durations: torch.Tensor | None = None,
        speech_features: torch.Tensor | None = None,
        speech_features_mask: torch.Tensor | None = None,
        speech_times: torch.Tensor | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        r"""
        Tokens of media that are sound alone. Arguments and result as in `get_video_features`; `input_features` may
        also be `(media, fbank_frames, mels)`, one window each.
        """
        if input_features.ndim == 3:
            input_features = input_features[:, None]
            if input_features_mask is not None:
                input_features_mask = input_features_mask[:, None]
        media = {name: value for name, value in locals().items() if name in MEDIA_INPUTS}
        return self._encode_media(media, {}, **kwargs)

    @can_return_tuple
    def get_image_features(self, pixel_values: torch.Tensor, **kwargs) -> BaseModelOutputWithPooling:
        r"""
        Tokens of still images, `(images, 3, height, width)`: media of one frame without a time. Result as in
        `get_video_features`.
        """
        return self._encode_media({"pixel_values_videos": pixel_values[:, None]}, {}, **kwargs)

    def _encode_media(
        self, media: dict[str, torch.Tensor | None], encoded: dict[int, VideoMemory | TowerFeatures], **kwargs
    ) -> BaseModelOutputWithPooling:
        """Run the towers on what is valid, then the connector; what is `encoded` stands in for media, by index."""
        media = {name: value for name, value in media.items() if value is not None}
        count = max([*(len(value) for value in media.values()), *(index + 1 for index in encoded)])
        features = {index: medium for index, medium in encoded.items() if is_tower_features(medium)}
        memories = {index: medium for index, medium in encoded.items() if index not in features}
        self._check_features(features.values())
        frames = encode_frames(self.vision_tower, self.config, media, **kwargs)
        columns = encode_audio(self.audio_tower, self.config, media, **kwargs)
        speech = encode_speech(self.speech_tower, self.config, media, **kwargs)
        frames = frames.joined({index: (medium.picture, medium.frame_times) for index, medium in features.items()})
        columns = columns.joined({index: (medium.sound, medium.column_times) for index, medium in features.items()})
        speech = speech.joined({index: (medium.speech, medium.speech_times) for index, medium in features.items()})

        durations = [0] * count if "video_durations" not in media else media["video_durations"].tolist()
        for index, medium in encoded.items():
            durations[index] = medium.duration
        windows, owners = [], []
        first_frame = first_column = first_speech = 0
        for index, (frame_times, column_times, speech_times) in enumerate(
            zip(frames.by_medium(count), columns.by_medium(count), speech.by_medium(count), strict=True)
        ):
            for window in self.layout.plan(frame_times, column_times, durations[index], speech_times):
                window.frames = [first_frame + frame for frame in window.frames]
                window.columns = [first_column + column for column in window.columns]
                window.speech = [first_speech + column for column in window.speech]
                windows.append(window)
                owners.append(index)
            first_frame += len(frame_times)
            first_column += len(column_times)
            first_speech += len(speech_times)

        output = self._connect(frames, columns, speech, windows, owners, durations, media, memories)
        tokens = [[] for _ in range(count)]
        for index, memory in memories.items():
            tokens[index].append(memory.window_tokens.to(execution_device(self.resampler), self.resampler.dtype))
        for index, window_tokens in zip(owners, output.window_tokens, strict=True):
            tokens[index].append(window_tokens)
        for index, parts in enumerate(tokens):
            if not parts:
                raise ValueError(f"Medium {index} of {count} has neither a valid frame nor valid sound.")
            if output.question_tokens:
                parts.append(output.question_tokens[index])
        tower = frames.tower if frames.tower is not None else columns.tower
        return BaseModelOutputWithPooling(
            last_hidden_state=tower.last_hidden_state if tower is not None else None,
            pooler_output=tuple(torch.cat(parts) for parts in tokens),
            hidden_states=tower.hidden_states if tower is not None else None,
            attentions=tower.attentions if tower is not None else None,
        )

    def _connect(
        self,
        frames: EncodedModality,
        columns: EncodedModality,
        speech: EncodedModality,
        windows: list[Window],
        owners: list[int],
        durations: list[int],
        media: dict[str, torch.Tensor],
        memories: dict[int, VideoMemory],
    ) -> ConnectorOutput:
        """Call the connector on its own device, in its own dtype."""
        dtype, device = self.resampler.dtype, execution_device(self.resampler)
        questions = None
        if "query_times" in media:
            times = media["query_times"].to(device)
            mask = media.get("query_times_mask", torch.ones_like(times)).to(device, torch.bool)
            questions = Questions(times, mask, torch.tensor(durations, dtype=torch.int64, device=device))
        pooled = {}
        fingerprint = self.encoder_fingerprint() if memories else None
        for index, memory in memories.items():
            if memory.encoder_hash != fingerprint:
                raise ValueError(
                    f"This video memory was made by weights with the fingerprint {memory.encoder_hash}, this model's "
                    f"is {fingerprint}: encode the video again with `model.encode_video`."
                )
            pooled[index] = PooledKeys(
                memory.pooled_states.to(device, dtype),
                memory.pooled_times.to(device),
                memory.pooled_modality.to(device),
                torch.full_like(memory.pooled_modality, index, device=device),
            )

        def time_features(times: torch.Tensor, durations: torch.Tensor) -> torch.Tensor:
            if self.temporal_projection is None:
                return torch.zeros(*times.shape, self.config.resampler_hidden_size, dtype=dtype, device=device)
            return self.temporal_projection(times, durations).to(device, dtype)

        # A function and not the module: accelerate moves whatever has a `.to` among the arguments.
        return self.resampler(
            frames.states.to(device, dtype),
            frames.times.to(device),
            columns.states.to(device, dtype),
            columns.times.to(device),
            time_features,
            WindowIndex.build(windows, [durations[index] for index in owners], owners, device),
            questions,
            pooled,
            # A connector has no projection for a tower that is not there.
            speech=None if self.speech_tower is None else speech.states.to(device, dtype),
            speech_times=speech.times.to(device),
        )

    @torch.no_grad()
    def encode_video(self, video, processor=None, **videos_kwargs) -> VideoMemory:
        r"""
        Watch and listen to a video once, window by window: memory does not grow with its length.

        Args:
            video: whatever the processor takes as a video (path, bytes, file object, frames with times).
            processor: the model's `SAVEnVideoProcessor`; loaded from where the model came from if None.
            videos_kwargs: how to sample, as for the processor (`sampling`, `num_frames`, `fps`, `max_frames`, ...).

        Returns:
            `VideoMemory`, to be handed to the processor in place of the video.
        """
        if self.resampler.joint:
            raise ValueError(
                "With question_times='joint' a video's tokens depend on the question, so it cannot be encoded ahead: "
                "ask with the file itself, or use a model with question_times='separate'."
            )
        stream = self._processor_or(processor).stream_video(video, **videos_kwargs)
        device = execution_device(self.resampler)
        columns, speech = (
            WaitingColumns(encode_audio(self.audio_tower, self.config, {})),
            WaitingColumns(encode_speech(self.speech_tower, self.config, {})),
        )
        tokens, pooled, num_frames = [], [], 0
        for number, (window, chunk) in enumerate(zip(stream.windows, stream, strict=True)):
            frames = encode_frames(self.vision_tower, self.config, chunk)
            columns.add(encode_audio(self.audio_tower, self.config, chunk))
            speech.add(encode_speech(self.speech_tower, self.config, chunk))
            local = Window(
                window.start,
                window.end,
                list(range(len(frames.times))),
                columns.local(window.columns),
                speech.local(window.speech),
            )
            output = self._connect(frames, columns.rows, speech.rows, [local], [0], [stream.duration], {}, {})
            tokens.extend(output.window_tokens)
            pooled.append(output.pooled)
            num_frames += len(frames.times)
            following = stream.windows[number + 1 :]
            columns.release(window.columns, (later.columns for later in following))
            speech.release(window.speech, (later.speech for later in following))
        keys = PooledKeys.cat(pooled)
        return VideoMemory(
            window_tokens=torch.cat(tokens),
            window_times=torch.tensor([[window.start, window.end] for window in stream.windows], device=device),
            pooled_states=keys.states,
            pooled_times=keys.times,
            pooled_modality=keys.modality,
            duration=stream.duration,
            num_frames=num_frames,
            audio_seconds=columns.released * PATCH_STEP_US / 1e6,
            encoder_hash=self.encoder_fingerprint(),
            preprocessing_hash=stream.preprocessing_hash,
        )

    @torch.no_grad()
    def encode_towers(self, video, processor=None, **videos_kwargs) -> TowerFeatures:
        r"""
        Run the towers over a medium once, so that what comes after them can be trained without them.

        Args:
            video: whatever the processor takes as a video; also the file of an image or of a sound.
            processor, videos_kwargs: as in `encode_video`.

        Returns:
            `TowerFeatures` on the CPU, in the dtype of the towers, to be handed to the processor in place of the
            medium. Beside them memory does not grow with the length of the video: it is read window by window.
        """
        stream = self._processor_or(processor).stream_video(video, **videos_kwargs)
        frames = [EncodedModality.absent(self.config.patches_per_frame, self.config.vision_config.hidden_size)]
        columns = [EncodedModality.absent(self.config.audio_bands, self.config.audio_config.hidden_size)]
        speech = [encode_speech(self.speech_tower, self.config, {})]
        for chunk in stream:
            for parts, part in (
                (frames, encode_frames(self.vision_tower, self.config, chunk)),
                (columns, encode_audio(self.audio_tower, self.config, chunk)),
                (speech, encode_speech(self.speech_tower, self.config, chunk)),
            ):
                if len(part.times):
                    parts.append(part.on("cpu"))
        picture, sound, speech = (EncodedModality.cat(parts[1:] or parts) for parts in (frames, columns, speech))
        return TowerFeatures(
            picture=picture.states.to(self.vision_tower.dtype),
            frame_times=picture.times,
            sound=sound.states.to(self.towers[-1].dtype),
            column_times=sound.times,
            duration=stream.duration,
            encoder_hash=self.tower_fingerprint(),
            preprocessing_hash=stream.tower_preprocessing_hash,
            sampling=stream.sampling,
            speech=speech.states.to(self.towers[-1].dtype),
            speech_times=speech.times,
        )

    def _processor_or(self, processor):
        """`processor`, or if it is None the one from where the model came from."""
        if processor is not None:
            return processor
        if not self.config._name_or_path:
            raise ValueError("Pass `processor`: this model was not loaded from anywhere to load one from.")
        # Whoever runs this class as remote code has trusted the folder that the processor is in.
        remote = type(self).__module__.startswith("transformers_modules")
        return AutoProcessor.from_pretrained(self.config._name_or_path, trust_remote_code=remote)

    def tower_fingerprint(self) -> str:
        """Hash of the towers alone, with their configuration.

        Raises:
            ValueError: the weights are sharded, so that no process has all of them.
        """
        towers, settings = self.towers, self.config.tower_settings()
        if any(map(is_sharded, towers)):
            raise ValueError(
                "The towers are sharded: take the fingerprint before the model is, or from a copy that is not."
            )
        # Training asks in every step, and frozen towers stay what they were.
        state = settings, weights_state(towers)
        if self._known_towers is None or self._known_towers[0] != state:
            self._known_towers = state, weights_fingerprint(towers, settings)
        return self._known_towers[1]

    def _check_features(self, features: Iterable[TowerFeatures]) -> None:
        hashes = {medium.encoder_hash for medium in features}
        # Sharded towers have no fingerprint; who shards them compares it first (`FeatureCache.check`).
        if not hashes or any(map(is_sharded, self.towers)):
            return
        own = self.tower_fingerprint()
        for other in hashes - {own}:
            raise ValueError(
                f"These tower features were made by towers with the fingerprint {other}, this model's is {own}: "
                "encode the video again with `model.encode_towers`, or a whole cache with `saven cache`."
            )

    def encoder_fingerprint(self) -> str:
        """Hash of what turns media into tokens: towers, TLP and resampler, with their configuration."""
        time = () if self.temporal_projection is None else (self.temporal_projection,)
        return weights_fingerprint((*self.towers, *time, self.resampler), self.config.media_settings())

    def get_placeholder_mask(
        self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor, num_features: int | None
    ) -> torch.Tensor:
        """Where the media go: `(batch, seq)` bool; checks their number against `num_features` (None: must be 0)."""
        ids = [self.config.video_token_id, self.config.image_token_id, self.config.audio_token_id]
        if input_ids is not None:
            mask = torch.isin(input_ids, torch.tensor(ids, device=input_ids.device))
        else:
            placeholders = self.get_input_embeddings()(torch.tensor(ids, device=inputs_embeds.device))
            mask = (inputs_embeds[..., None, :] == placeholders).all(-1).any(-1)
        expected = int(mask.sum())
        if expected != (num_features or 0):
            given = "no media" if num_features is None else f"media of {num_features} tokens"
            raise ValueError(
                f"The prompt has {expected} placeholder tokens, but there were {given}. Pass everything the processor "
                "returned, and use the processor of this model (its `layout` must be the model's)."
            )
        return mask.to(inputs_embeds.device)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values=None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        frame_times: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        audio_times: torch.Tensor | None = None,
        query_times: torch.Tensor | None = None,
        query_times_mask: torch.Tensor | None = None,
        video_durations: torch.Tensor | None = None,
        speech_features: torch.Tensor | None = None,
        speech_features_mask: torch.Tensor | None = None,
        speech_times: torch.Tensor | None = None,
        mm_encoder_outputs: dict | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SAVEnVideoModelOutputWithPast:
        r"""
        Args:
            input_ids (`(batch, seq)`): with every placeholder expanded to the tokens of its medium.
            mm_encoder_outputs (`dict`, *optional*): under `"video"` either the output of `get_video_features`, or a
                list with one `VideoMemory`, `TowerFeatures` or None per medium.
            The media arguments are those of `get_video_features`.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Pass either `input_ids` or `inputs_embeds`.")
        media = {name: value for name, value in locals().items() if name in MEDIA_INPUTS}
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)

        features = self.resolve_media(media, mm_encoder_outputs)
        tokens = None
        if features is not None:
            tokens = torch.cat([part.to(inputs_embeds.device, inputs_embeds.dtype) for part in features.pooler_output])
            mask = self.get_placeholder_mask(input_ids, inputs_embeds, len(tokens))
            inputs_embeds = inputs_embeds.masked_scatter(mask[..., None], tokens)
        elif (
            not torch.compiler.is_compiling()  # compiled steps come after the prompt, which was checked
            and input_ids is not None
            and (past_key_values is None or past_key_values.get_seq_length() == 0)
        ):
            # Placeholders without media would train, or answer, on meaningless embeddings without a word.
            self.get_placeholder_mask(input_ids, inputs_embeds, None)

        outputs = self.language_model(
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        return SAVEnVideoModelOutputWithPast(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            video_hidden_states=tokens,
        )

    def resolve_media(
        self, media: dict[str, torch.Tensor | None], mm_encoder_outputs: dict | None
    ) -> BaseModelOutputWithPooling | None:
        """Tokens of all media of a batch, from tensors, from what was encoded ahead, or both; None without media."""
        given = (mm_encoder_outputs or {}).get("video")
        names = ("pixel_values_videos", "input_features", "speech_features")
        tensors = any(media.get(name) is not None for name in names)
        if given is None:
            return self._encode_media(media, {}) if tensors else None
        if getattr(given, "pooler_output", None) is not None:
            if tensors:
                raise ValueError("Got media both as tensors and as `mm_encoder_outputs`; pass one of them.")
            return given
        encoded = {index: medium for index, medium in enumerate(given) if medium is not None}
        return self._encode_media(media, encoded)


class SAVEnVideoForConditionalGeneration(SAVEnVideoPreTrainedModel, GenerationMixin):
    """SAVEnVideo with its language-modelling head: ask it about videos, images and sounds."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: SAVEnVideoConfig):
        super().__init__(config)
        self.model = SAVEnVideoModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()
        self.freeze_towers()

    def get_video_features(self, pixel_values_videos: torch.Tensor | None = None, **kwargs):
        """See [`SAVEnVideoModel.get_video_features`]."""
        return self.model.get_video_features(pixel_values_videos, **kwargs)

    def get_audio_features(self, input_features: torch.Tensor, **kwargs):
        """See [`SAVEnVideoModel.get_audio_features`]."""
        return self.model.get_audio_features(input_features, **kwargs)

    def get_image_features(self, pixel_values: torch.Tensor, **kwargs):
        """See [`SAVEnVideoModel.get_image_features`]."""
        return self.model.get_image_features(pixel_values, **kwargs)

    def encode_video(self, video, processor=None, **videos_kwargs) -> VideoMemory:
        """See [`SAVEnVideoModel.encode_video`]."""
        return self.model.encode_video(video, processor, **videos_kwargs)

    def encode_towers(self, video, processor=None, **videos_kwargs) -> TowerFeatures:
        """See [`SAVEnVideoModel.encode_towers`]."""
        return self.model.encode_towers(video, processor, **videos_kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values=None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        frame_times: torch.Tensor | None = None,
        frame_mask: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        audio_times: torch.Tensor | None = None,
        query_times: torch.Tensor | None = None,
        query_times_mask: torch.Tensor | None = None,
        video_durations: torch.Tensor | None = None,
        speech_features: torch.Tensor | None = None,
        speech_features_mask: torch.Tensor | None = None,
        speech_times: torch.Tensor | None = None,
        mm_encoder_outputs: dict | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Unpack[TransformersKwargs],
    ) -> SAVEnVideoCausalLMOutputWithPast:
        r"""
        Args:
            labels (`(batch, seq)`, *optional*): token ids to predict, -100 where nothing is asked.
            logits_to_keep: how many logits from the end, or which positions; 0 for all.
            The other arguments are those of [`SAVEnVideoModel`].
        """
        media = {name: value for name, value in locals().items() if name in MEDIA_INPUTS}
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            mm_encoder_outputs=mm_encoder_outputs,
            return_dict=True,
            **media,
            **kwargs,
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, keep, :])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size, **kwargs
            )
        return SAVEnVideoCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            video_hidden_states=outputs.video_hidden_states,
        )

    def prepare_inputs_for_generation(
        self, input_ids, inputs_embeds=None, is_first_iteration=False, use_cache=True, **kwargs
    ):
        # `generate` takes `inputs_embeds` only where this signature names them.
        media = {name: kwargs.pop(name, None) for name in (*MEDIA_INPUTS, "mm_encoder_outputs")}
        inputs = super().prepare_inputs_for_generation(
            input_ids,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            use_cache=use_cache,
            **kwargs,
        )
        # With a cache the media are in it after the first step. (The first step of an assistant model in assisted
        # decoding is not flagged as one: its cache is empty.)
        cache = inputs.get("past_key_values")
        if is_first_iteration or not use_cache or cache is None or cache.get_seq_length() == 0:
            inputs.update({name: value for name, value in media.items() if value is not None})
        return inputs

    def _prefill(self, input_ids, generation_config, *args, **kwargs):
        # With `prefill_chunk_size` transformers deals media tokens out by the video placeholders of each chunk, and
        # would drop those of images and sounds. Any placeholder will do: its own embedding is never used.
        if generation_config.prefill_chunk_size is not None:
            others = torch.tensor([self.config.image_token_id, self.config.audio_token_id], device=input_ids.device)
            input_ids = input_ids.masked_fill(torch.isin(input_ids, others), self.config.video_token_id)
        return super()._prefill(input_ids, generation_config, *args, **kwargs)

    def _prepare_multimodal_encoder_kwargs_for_generation(self, model_kwargs: dict) -> dict:
        """Encode the media once per call of `generate`, whatever beams and returned sequences follow.

        The base class encodes images and videos one after the other, from arguments of their own; here one tensor
        holds all media of the batch.
        """
        media = {name: model_kwargs.pop(name, None) for name in MEDIA_INPUTS}
        features = self.model.resolve_media(media, model_kwargs.pop("mm_encoder_outputs", None))
        if features is not None:
            # Only the tokens: what the towers said (gigabytes for an hour) would live as long as the generation.
            features = BaseModelOutputWithPooling(pooler_output=features.pooler_output)
            model_kwargs["mm_encoder_outputs"] = {"video": features}
        return model_kwargs

    def _expand_inputs_for_generation(self, expand_size=1, is_encoder_decoder=False, input_ids=None, **model_kwargs):
        """Repeat each sample with its media: [A, B], [C] becomes [A, B], [A, B], [C], [C]."""
        model_kwargs = self._prepare_multimodal_encoder_kwargs_for_generation(model_kwargs)
        features = model_kwargs.pop("mm_encoder_outputs", {}).get("video")
        if features is not None and expand_size > 1:
            embeds = model_kwargs.get("inputs_embeds")
            total = sum(len(part) for part in features.pooler_output)
            ids = input_ids if input_ids is not None and input_ids.numel() else None
            per_sample = self.model.get_placeholder_mask(ids, embeds if ids is None else ids, total).sum(-1).tolist()
            ends = list(accumulate(len(part) for part in features.pooler_output))
            parts, first = [], 0
            for end_token in accumulate(per_sample):
                last = first
                while last < len(ends) and ends[last] <= end_token:
                    last += 1
                parts.extend(list(features.pooler_output[first:last]) * expand_size)
                first = last
            features = BaseModelOutputWithPooling(pooler_output=tuple(parts))
        input_ids, model_kwargs = super()._expand_inputs_for_generation(
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **model_kwargs
        )
        if features is not None:
            model_kwargs["mm_encoder_outputs"] = {"video": features}
        return input_ids, model_kwargs

    @classmethod
    def from_components(
        cls, vision, audio, text, tokenizer=None, dtype: torch.dtype | None = None, speech=None, **settings
    ):
        r"""
        Put a model together from trained parts; the connector is new.

        Args:
            vision: folder or Hub id of a SigLIP (2) model, or the vision model itself.
            audio: folder or Hub id of converted BEATs (`saven convert beats`), or the `SAVEnVideoBeatsModel` itself;
                None for a model that hears nothing.
            text: folder or Hub id of a decoder-only model, or the causal model itself.
            tokenizer: of the text model; loaded from `text` if None. Placeholder tokens that it lacks are added to it,
                and rows to the embeddings if they do not fit.
            dtype: of all weights; float32 if None.
            speech: folder or Hub id of a Whisper model, or its encoder itself; None for a model without speech tower.
            settings: fields of [`SAVEnVideoConfig`].
        """
        dtype = dtype or torch.float32
        if tokenizer is None:
            if isinstance(text, nn.Module):
                raise ValueError("Pass `tokenizer`: a model that is already loaded does not name one.")
            tokenizer = AutoTokenizer.from_pretrained(text)
        tokenizer.add_special_tokens(
            {"additional_special_tokens": list(PLACEHOLDER_TOKENS.values())}, replace_extra_special_tokens=False
        )
        if not isinstance(vision, nn.Module):
            vision = load_vision_tower(vision, dtype)
        if audio is not None and not isinstance(audio, nn.Module):
            audio = SAVEnVideoBeatsModel.from_pretrained(audio, dtype=dtype)
        if speech is not None and not isinstance(speech, nn.Module):
            speech = load_speech_tower(speech, dtype)
        if not isinstance(text, nn.Module):
            text = AutoModelForCausalLM.from_pretrained(text, dtype=dtype)
        if getattr(text.get_output_embeddings(), "bias", None) is not None:
            raise ValueError(f"The head of {type(text).__name__} has a bias, which this model's head does not.")
        for name in ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier"):
            if getattr(text.config, name, None) not in (None, 1, 1.0):
                raise ValueError(
                    f"{type(text).__name__} changes its logits by {name}={getattr(text.config, name)}, which this "
                    "model's head does not: take another language model."
                )
        if text.get_input_embeddings().num_embeddings < len(tokenizer):
            text.resize_token_embeddings(len(tokenizer))

        ids = {field: tokenizer.convert_tokens_to_ids(token) for field, token in PLACEHOLDER_TOKENS.items()}
        parts = {"vision_config": vision.config, "text_config": text.config, "has_audio_tower": audio is not None}
        if audio is not None:
            parts["audio_config"] = audio.config
        if speech is not None:
            parts["speech_config"] = speech.config
        config = SAVEnVideoConfig(**{**parts, **ids, **settings})
        decoder, head = text.get_decoder(), text.get_output_embeddings()
        return cls.assemble(config, vision, audio, decoder, head, text.generation_config, dtype, speech)

    @classmethod
    def assemble(
        cls,
        config: SAVEnVideoConfig,
        vision: PreTrainedModel,
        audio: PreTrainedModel | None,
        decoder: PreTrainedModel,
        head: nn.Linear,
        generation_config,
        dtype: torch.dtype,
        speech: PreTrainedModel | None = None,
    ):
        r"""
        A model around loaded towers and a language model (its decoder and its head), which become part of it. The
        connector is new. `config` must describe them; see `from_components`.
        """
        # Only the connector is built for real: a random 7B would cost its memory twice.
        with torch.device("meta"):
            model = cls(config)
        inner = model.model
        inner.vision_tower, inner.audio_tower, inner.speech_tower = vision, audio, speech
        inner.language_model, model.lm_head = decoder, head
        for module in (inner.temporal_projection, inner.resampler):
            if module is not None:
                module.to_empty(device="cpu")
                module.apply(model._init_weights)
        # Parameters only: rotary frequencies are buffers, and worth little in half precision.
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)
        model.tie_weights()
        model.generation_config = generation_config
        # A sampled placeholder would ask for a medium that is not there.
        model.generation_config.suppress_tokens = sorted(getattr(config, name) for name in PLACEHOLDER_TOKENS)
        model.freeze_towers()
        return model.eval()


__all__ = ["SAVEnVideoForConditionalGeneration", "SAVEnVideoModel", "SAVEnVideoPreTrainedModel"]
