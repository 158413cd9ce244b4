"""Keys and values of a text that is being written: a new token goes into room that is kept for it.

The usual cache of transformers copies all keys and values for each new token. A small language model that writes many
texts at a time spends most of its time on that.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import GenerationMixin
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

_ROOM = 64  # tokens for which room is made at a time
# Models that count distances by places in the cache: a token that is masked out there still moves the others apart.
_COUNT_PLACES = frozenset({"gpt_neo", "mpt"})


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer, shape (batch, heads, tokens, width), held in a larger tensor.

    Where rows are taken out or repeated, the room is given back, and new room is made with the next token.
    """

    keys: Tensor
    values: Tensor
    _room: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add tokens.

        Parameters
        ----------
        key_states, value_states : Tensor, shape (batch, heads, new tokens, width)
            Of the new tokens.

        Returns
        -------
        keys, values : Tensor, shape (batch, heads, tokens, width)
            Of all tokens; views of the room.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = self.get_seq_length()
        end = held + key_states.shape[-2]
        if self._room is None or end > self._room[0].shape[-2] or not _lies_in(self.keys, self._room[0]):
            old = (self.keys, self.values) if held else (key_states[..., :0, :], value_states[..., :0, :])
            self._room = _with_room(old[0], end + _ROOM), _with_room(old[1], end + _ROOM)
        keys, values = self._room
        keys[..., held:end, :], values[..., held:end, :] = key_states, value_states
        self.keys, self.values = keys[..., :end, :], values[..., :end, :]
        return self.keys, self.values

    def reset(self) -> None:
        """Forget all tokens."""
        self._room = None
        super().reset()

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows.

        Parameters
        ----------
        indices : Tensor of int, shape (n_rows,)
            Which.
        """
        super().batch_select_indices(indices)
        self._room = None

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row.

        Parameters
        ----------
        repeats : int
            How often it stands then.
        """
        super().batch_repeat_interleave(repeats)
        self._room = None


def _lies_in(part: Tensor, whole: Tensor) -> bool:
    """Whether a tensor is the beginning of another one along the tokens, in the same memory."""
    return part.data_ptr() == whole.data_ptr() and part.shape[:2] == whole.shape[:2] and part.stride() == whole.stride()


def _with_room(states: Tensor, tokens: int) -> Tensor:
    batch, heads, held, width = states.shape
    whole = states.new_empty(batch, heads, tokens, width)
    whole[..., :held, :] = states
    return whole


def text_cache(model: Any) -> DynamicCache | None:
    """An empty cache for texts that a model writes; None for a model that keeps something else than keys and values.

    Parameters
    ----------
    model : Module
        With attention to the whole text in every layer; others (sliding windows, state spaces) keep their own cache.
    """
    if not isinstance(model, GenerationMixin) or not model._supports_default_dynamic_cache():
        return None
    if getattr(model.generation_config, "cache_implementation", None) is not None:
        return None  # it has been chosen for this model
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    if not cache.layers or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None
    cache.layers = [RoomyLayer() for _ in cache.layers]
    return cache


def can_lose_rows(cache: Any) -> bool:
    """Whether texts of a batch can be taken out of a cache: it has keys and values alone, no other state.

    Parameters
    ----------
    cache : Cache or None
        That a model has returned.
    """
    known = (DynamicLayer, DynamicSlidingWindowLayer, RoomyLayer)
    layers = getattr(cache, "layers", [])
    return bool(layers) and all(type(layer) in known for layer in layers)


def can_go_back(model: Any, cache: Any) -> bool:
    """Whether a model can read on behind a part of what is in a cache, with the rest masked out.

    Parameters
    ----------
    model : Module
        Whose cache it is. One that sees the last tokens alone, or counts distances by places in the cache, cannot.
    cache : Cache or None
        That it has returned.
    """
    layers = getattr(cache, "layers", [])
    config = getattr(model, "config", None)
    if not layers or config is None or config.get_text_config(decoder=True).model_type in _COUNT_PLACES:
        return False
    return all(type(layer) in (DynamicLayer, RoomyLayer) for layer in layers)


def rows_of(cache: DynamicCache, rows: Tensor) -> DynamicCache:
    """Some rows of a cache as one of their own, without room for more than is added.

    Parameters
    ----------
    cache : DynamicCache
        With layers of :func:`can_go_back`; it stays as it is.
    rows : Tensor of int, shape (n_rows,)
        Which, on the CPU: layers may lie on several devices.
    """
    part = DynamicCache()
    for layer in cache.layers:
        taken = DynamicLayer()
        taken.lazy_initialization(layer.keys, layer.values)
        taken.keys, taken.values = layer.keys[rows], layer.values[rows]
        part.layers.append(taken)
    return part
