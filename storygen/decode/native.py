"""NativeDecoder: a GPT computed by decode.c."""

from array import array
from collections.abc import Mapping, Sequence
from ctypes import (
    CDLL,
    POINTER,
    Structure,
    addressof,
    byref,
    c_double,
    c_float,
    c_int32,
    c_int64,
    c_void_p,
    cast,
    pointer,
)
from typing import Any

import numpy as np

from storygen.decode.interface import Token
from storygen.decode.pack import FORMATS, WIDE, Packed
from storygen.decode.weights import packed
from storygen.model.config import ACTIVATIONS, GPTConfig
from storygen.params import Row

ROWS = 64  # of one step: enough to use each weight well, few enough to stay in a core's cache


class _Matrix(Structure):
    _fields_ = [
        ("format", c_int32),
        ("n_in", c_int32),
        ("n_out", c_int32),
        ("data", c_void_p),
        ("bias", c_void_p),
    ]


class _Layer(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("ln_1_weight", "ln_1_bias", "ln_2_weight", "ln_2_bias")),
        *((name, _Matrix) for name in ("c_attn", "attn_proj", "c_fc", "mlp_proj")),
    ]


class _Model(Structure):
    _fields_ = [
        *(
            (name, c_int32)
            for name in (
                "n_layer",
                "n_head",
                "n_embd",
                "n_inner",
                "vocab_size",
                "block_size",
                "activation",
                "cache_bf16",
            )
        ),
        ("layer_norm_epsilon", c_float),
        ("embedding", POINTER(_Matrix)),
        ("lm_head", _Matrix),
        ("wpe", c_void_p),
        ("ln_f_weight", c_void_p),
        ("ln_f_bias", c_void_p),
        ("layers", POINTER(_Layer)),
    ]


class _Adjustment(Structure):
    _fields_ = [("added", c_double), ("id", c_int64)]


class _Choice(Structure):
    _fields_ = [
        ("temperature", c_double),
        ("top_p", c_double),
        ("min_p", c_double),
        ("repetition_penalty", c_double),
        ("seed", c_int64),
        ("position", c_int64),
        ("top_k", c_int32),
        ("n_context", c_int32),
        ("n_adjustments", c_int32),
        ("context", c_void_p),
        ("adjustments", c_void_p),
    ]


class _Batch(Structure):
    _fields_ = [
        ("n_rows", c_int32),
        ("n_out", c_int32),
        ("slots", c_void_p),
        ("positions", c_void_p),
        ("tokens", c_void_p),
        ("out", c_void_p),
        ("logits", c_void_p),
        ("n_tokens", c_int32),
        ("choices", c_void_p),
        ("drawn", c_void_p),
    ]


class NativeDecoder:
    """A GPT in one of FORMATS; see interface.Decoder.

    Native code trusts its caller: slots and tokens must exist, and positions be below block_size.
    """

    rows_are_independent = True

    def __init__(
        self,
        library: CDLL,
        config: GPTConfig,
        weights: Mapping[str, np.ndarray],
        form: str,
        n_slots: int,
        n_threads: int,
        matrices: Mapping[str, Packed] | None = None,
    ) -> None:
        """weights by their names in GPT; of these the matrices may be there in their form already.
        Raises MemoryError where there is not enough."""
        self.config, self.n_slots, self._form = config, n_slots, form
        self.max_rows = max(ROWS, n_slots)
        self._library = declare(library)
        self._kept: list[Any] = []  # what C looks at
        model = self._model(weights, matrices or packed(config, weights, form))
        self._session = library.storygen_open(byref(model), n_slots, self.max_rows, n_threads)
        if not self._session:
            raise MemoryError(f"{n_slots} slots of {config.block_size} tokens")
        self._slots, self._positions, self._tokens, self._out, self._drawn = (
            (c_int32 * self.max_rows)() for _ in range(5)
        )
        self._choices = (_Choice * self.max_rows)()
        self._logits = np.empty((1, -(-config.vocab_size // WIDE) * WIDE), np.float32)
        self._batch = _Batch(
            slots=addressof(self._slots),
            positions=addressof(self._positions),
            tokens=addressof(self._tokens),
            out=addressof(self._out),
            drawn=addressof(self._drawn),
        )

    def step(
        self, rows: Sequence[Token], out: Sequence[int], choices: Sequence[Row], n_tokens: int
    ) -> list[int | None]:
        """See interface.Decoder."""
        kept: list[Any] = []  # what C looks at
        for place, (params, position, context, adjustments) in zip(
            self._choices, choices, strict=False
        ):
            place.temperature, place.top_k = params.temperature, params.top_k
            place.top_p, place.min_p = params.top_p, params.min_p
            place.repetition_penalty = params.repetition_penalty
            place.seed, place.position = params.seed or 0, position
            if params.repetition_penalty != 1:
                kept.append(array("i", context))
                place.n_context, place.context = len(context), kept[-1].buffer_info()[0]
            place.n_adjustments = len(adjustments)
            if adjustments:
                pairs = [_Adjustment(added, token) for token, added in adjustments]
                kept.append((_Adjustment * len(pairs))(*pairs))
                place.adjustments = addressof(kept[-1])
        self._batch.choices, self._batch.n_tokens = addressof(self._choices), n_tokens
        self._run(rows, out)
        return [token if token >= 0 else None for token in self._drawn[: len(out)]]

    def logits(self, rows: Sequence[Token], out: Sequence[int]) -> np.ndarray:
        """See interface.Decoder."""
        self._batch.choices = None
        self._run(rows, out)
        return self._logits[: len(out), : self.config.vocab_size]

    def copy(self, source: int, target: int, n: int) -> None:
        """See interface.Decoder."""
        self._library.storygen_copy(self._session, source, target, n)

    def close(self) -> None:
        """See interface.Decoder."""
        self._library.storygen_close(self._session)
        self._session = None
        self._kept.clear()

    def _run(self, rows: Sequence[Token], out: Sequence[int]) -> None:
        n, n_out = len(rows), len(out)
        assert n <= self.max_rows, n
        if len(self._logits) < n_out:
            self._logits = np.empty((n_out, self._logits.shape[1]), np.float32)
        self._slots[:n] = [row.slot for row in rows]
        self._positions[:n] = [row.position for row in rows]
        self._tokens[:n] = [row.id for row in rows]
        self._out[:n_out] = list(out)
        self._batch.n_rows, self._batch.n_out = n, n_out
        self._batch.logits = self._logits.ctypes.data
        self._library.storygen_step(self._session, byref(self._batch))

    def _model(self, weights: Mapping[str, np.ndarray], of_model: Mapping[str, Packed]) -> _Model:
        """The structures that C reads; vectors in memory of their own."""
        config = self.config
        matrices = [self._matrix(name, matrix, weights) for name, matrix in of_model.items()]
        layers = (_Layer * config.n_layer)()
        for n, layer in enumerate(layers):
            layer.c_attn, layer.attn_proj, layer.c_fc, layer.mlp_proj = matrices[4 * n : 4 * n + 4]
            for field in ("ln_1_weight", "ln_1_bias", "ln_2_weight", "ln_2_bias"):
                norm, _, kind = field.rpartition("_")
                setattr(layer, field, self._floats(weights[f"h.{n}.{norm}.{kind}"]))
        head, embedding = matrices[4 * config.n_layer], matrices[-1]
        model = _Model(
            n_layer=config.n_layer,
            n_head=config.n_head,
            n_embd=config.n_embd,
            n_inner=config.mlp_size,
            vocab_size=config.vocab_size,
            block_size=config.block_size,
            activation=1 + ACTIVATIONS.index(config.activation),
            cache_bf16=self._form != "fp32",
            layer_norm_epsilon=config.layer_norm_epsilon,
            embedding=pointer(embedding),
            lm_head=head,
            wpe=self._floats(weights["wpe.weight"]),
            ln_f_weight=self._floats(weights["ln_f.weight"]),
            ln_f_bias=self._floats(weights["ln_f.bias"]),
            layers=cast(layers, POINTER(_Layer)),
        )
        self._kept += [layers, embedding, model]
        return model

    def _matrix(self, name: str, matrix: Packed, weights: Mapping[str, np.ndarray]) -> _Matrix:
        bias = weights.get(name.replace("weight", "bias"))
        self._kept.append(matrix.data)
        return _Matrix(
            format=FORMATS.index(matrix.form),
            n_in=matrix.n_in,
            n_out=matrix.n_out,
            data=matrix.data.ctypes.data,
            bias=self._floats(np.zeros(matrix.n_out) if bias is None else bias),
        )

    def _floats(self, values: np.ndarray) -> int:
        """Address of a copy in fp32, with zeros up to the next 64."""
        flat = np.asarray(values, np.float32).ravel()
        padded = np.zeros(-(-len(flat) // WIDE) * WIDE, np.float32)
        padded[: len(flat)] = flat
        self._kept.append(padded)
        return padded.ctypes.data


def declare(library: CDLL) -> CDLL:
    """Tell ctypes the types of decode.c's functions."""
    library.storygen_open.argtypes = [POINTER(_Model), c_int32, c_int32, c_int32]
    library.storygen_open.restype = c_void_p
    library.storygen_close.argtypes = [c_void_p]
    library.storygen_close.restype = None
    library.storygen_step.argtypes = [c_void_p, POINTER(_Batch)]
    library.storygen_step.restype = None
    library.storygen_copy.argtypes = [c_void_p, c_int32, c_int32, c_int32]
    library.storygen_copy.restype = None
    return library
