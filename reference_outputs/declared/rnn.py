"""Recurrent layers, their cells, and the layers that wrap others."""

from collections.abc import Callable

import keras
import numpy as np
from keras import layers

from .case import ALL_FILES, Cases, inputs_for, masked, masked_ids, normal, records, sequential

FED = (2, 5, 3)


def recurrent(case: Cases, layer: type, states: int) -> None:
    """What every recurrent layer has."""
    for name, says, options in [
        ("last", "The gates in another order, or a bias of two added once.", {}),
        ("sequences", "Only the last step given back.", {"return_sequences": True}),
        ("backwards", "The steps given back in their first order: Keras leaves them reversed.", {"go_backwards": True, "return_sequences": True}),
        ("no_bias", "A bias expected where there is none.", {"use_bias": False}),
        ("relu", "The activation applied to the output only.", {"activation": "relu"}),
        ("dropout", "Numbers dropped at inference.", {"dropout": 0.5, "recurrent_dropout": 0.5, "seed": 3}),
        ("unroll", "An unrolled loop refused, or other than the plain one.", {"unroll": True, "return_sequences": True}),
    ]:
        case(name, says, lambda options=options: layer(4, **options), FED)
    if layer is not layers.SimpleRNN:
        options = {"activation": "softsign", "recurrent_activation": "hard_sigmoid"}
        case("activations", "The two activations swapped, or taken for the usual ones.", lambda: layer(4, **options), FED)
    for name, says, options in [
        ("mask", "A masked step that changes the state, or ends the sequence.", {}),
        ("mask_sequences", "A masked step's output 0: it is that of the step before.", {"return_sequences": True}),
        ("mask_zero_output", "zero_output_for_mask ignored.", {"return_sequences": True, "zero_output_for_mask": True}),
        ("mask_backwards", "The mask not turned round with the steps.", {"go_backwards": True, "return_sequences": True}),
    ]:
        case(name, says, lambda options=options: [masked(), layer(4, **options)], masked_ids())

    @case.model("states", "The states given back in another order, or an initial state ignored.")
    def _(rng):
        arrays = [normal(rng, *FED), *(normal(rng, 2, 4) for _ in range(states))]
        inputs = inputs_for(*arrays)
        outputs = layer(4, return_sequences=True, return_state=True)(inputs[0], initial_state=inputs[1:])
        return keras.Model(inputs, outputs), arrays

    one_row = "JAX's loop wants states of as many rows as the input has"

    @case.model("state_of_one_row", "An initial state of one row refused: it stands for all of them.", without_jax=one_row)
    def _(rng):
        arrays = [normal(rng, *FED), *(normal(rng, 1, 4) for _ in range(states))]
        inputs = [keras.Input(FED[1:]), *(keras.Input(batch_shape=(1, 4)) for _ in range(states))]
        return keras.Model(inputs, layer(4)(inputs[0], initial_state=inputs[1:])), arrays

    @case.model("encoder_decoder", "A state handed from one layer to the next lost, or its mask taken with it.")
    def _(rng):
        arrays = [masked_ids(4), normal(rng, 5, 3, 2)]
        inputs = inputs_for(*arrays)
        _, *kept = layer(3, return_state=True)(masked()(inputs[0]))
        outputs = layer(3, return_sequences=True)(inputs[1], initial_state=kept)
        return keras.Model(inputs, outputs), arrays


def stateful(case: Cases, layer: type) -> None:
    @case.model("stateful", "A state begun anew, or left over: a file loaded begins at 0.")
    def _(rng):
        xs = keras.Input(batch_shape=FED)
        return keras.Model(xs, layer(3, stateful=True)(xs)), [normal(rng, *FED)]


@records(layers.SimpleRNN)
def simple_rnn(case: Cases) -> None:
    recurrent(case, layers.SimpleRNN, 1)
    stateful(case, layers.SimpleRNN)
    says = "An activation layer in half precision refused, or its float16 met with float32."
    build = lambda: layers.SimpleRNN(3, dtype="mixed_float16", activation=layers.LeakyReLU(0.1, dtype="mixed_float16"))  # noqa: E731
    case("object_in_float16", says, build, (2, 4, 3), truth=False)


@records(layers.LSTM)
def lstm(case: Cases) -> None:
    recurrent(case, layers.LSTM, 2)
    stateful(case, layers.LSTM)


@records(layers.GRU)
def gru(case: Cases) -> None:
    recurrent(case, layers.GRU, 1)
    stateful(case, layers.GRU)
    before = {"reset_after": False, "return_sequences": True}
    case("reset_before", "The reset gate applied after the product: here it is before.", lambda: layers.GRU(4, **before), FED)
    no_bias = {"reset_after": False, "use_bias": False, "activation": "relu"}
    case("reset_before_no_bias", "A bias of another shape expected.", lambda: layers.GRU(4, **no_bias), FED)
    case("reset_before_mask", "A masked step that changes the state.", lambda: [masked(), layers.GRU(4, reset_after=False)], masked_ids())


# ----------------------------------------------------------------------------
# Cells
# ----------------------------------------------------------------------------


def cell(case: Cases, build: Callable[..., layers.Layer], states: int, variants: list[tuple[str, str, dict]]) -> None:
    """A cell as a layer of its own: one step."""
    for name, says, options in variants:

        @case.model(name, says)
        def _(rng, options=options):
            arrays = [normal(rng, 3, 2), *(normal(rng, 3, 4) for _ in range(states))]
            inputs = inputs_for(*arrays)
            output, after = build(4, **options)(inputs[0], inputs[1:])
            return keras.Model(inputs, [output, *after]), arrays


@records(layers.SimpleRNNCell)
def simple_rnn_cell(case: Cases) -> None:
    cell(
        case,
        layers.SimpleRNNCell,
        1,
        [
            ("plain", "The state given back before the activation.", {}),
            ("no_bias", "A bias expected where there is none.", {"use_bias": False}),
            ("relu", "Another activation than tanh.", {"activation": "relu"}),
        ],
    )


@records(layers.LSTMCell)
def lstm_cell(case: Cases) -> None:
    cell(
        case,
        layers.LSTMCell,
        2,
        [
            ("plain", "The two states swapped.", {}),
            ("no_bias", "A bias expected where there is none.", {"use_bias": False}),
            ("activations", "The two activations swapped.", {"activation": "relu", "recurrent_activation": "hard_sigmoid"}),
        ],
    )


@records(layers.GRUCell)
def gru_cell(case: Cases) -> None:
    cell(
        case,
        layers.GRUCell,
        1,
        [
            ("plain", "The update gate turned round.", {}),
            ("reset_before", "The reset gate applied after the product.", {"reset_after": False}),
            ("activations", "The two activations swapped.", {"activation": "relu", "recurrent_activation": "hard_sigmoid"}),
        ],
    )


CELLS = {
    "simple_rnn_cell": lambda units: layers.SimpleRNNCell(units),
    "lstm_cell": lambda units: layers.LSTMCell(units),
    "gru_cell": lambda units: layers.GRUCell(units),
    "gru_cell_reset_before": lambda units: layers.GRUCell(units, reset_after=False),
}


@records(layers.StackedRNNCells)
def stacked_rnn_cells(case: Cases) -> None:
    def stack() -> layers.StackedRNNCells:
        return layers.StackedRNNCells([layers.LSTMCell(3), layers.GRUCell(2), layers.SimpleRNNCell(4)])

    says = "The cells' states or weights in another order."
    case("last", says, lambda: layers.RNN(stack()), FED, files=ALL_FILES)
    case("mask", says, lambda: [masked(), layers.RNN(stack(), return_sequences=True)], masked_ids())
    case("states", says, lambda: layers.RNN(stack(), return_state=True), FED, call=lambda layer, xs: layer(xs))


@records(layers.RNN)
def rnn(case: Cases) -> None:
    for name, build in CELLS.items():
        says = "A cell's options ignored, or its weights looked for in the layer."
        case(name, says, lambda build=build: layers.RNN(build(4), return_sequences=True), FED)
    mask = lambda: [masked(), layers.RNN(layers.LSTMCell(3), go_backwards=True)]  # noqa: E731
    case("mask_backwards", "The mask not turned round with the steps.", mask, masked_ids())


# ----------------------------------------------------------------------------
# Wrappers
# ----------------------------------------------------------------------------


@records(layers.Bidirectional)
def bidirectional(case: Cases) -> None:
    for mode in ["concat", "sum", "mul", "ave", None]:
        case(
            f"merge_{mode}".lower(),
            "The backward steps not turned round again, or merged in another way.",
            lambda mode=mode: layers.Bidirectional(layers.LSTM(3, return_sequences=True), merge_mode=mode),
            FED,
            call=lambda layer, xs: layer(xs),
            files=ALL_FILES if mode == "concat" else ("model.keras",),
        )
    case("last", "The backward layer's last step: the one at the front.", lambda: layers.Bidirectional(layers.GRU(3)), FED)
    for name, options in [("mask", {}), ("mask_sequences", {"return_sequences": True})]:
        says = "Masked steps turned round to the front that change the state."
        case(name, says, lambda options=options: [masked(), layers.Bidirectional(layers.LSTM(3, **options))], masked_ids())
    case(
        "backward_layer",
        "A backward layer of its own taken for a copy of the forward one.",
        lambda: layers.Bidirectional(
            layers.LSTM(3, return_sequences=True),
            backward_layer=layers.GRU(2, go_backwards=True, return_sequences=True, activation="relu"),
        ),
        FED,
    )

    @case.model("states", "The states of the two layers swapped.")
    def _(rng):
        arrays = [normal(rng, *FED), *(normal(rng, 2, 3) for _ in range(4))]
        inputs = inputs_for(*arrays)
        layer = layers.Bidirectional(layers.LSTM(3, return_state=True))
        return keras.Model(inputs, layer(inputs[0], initial_state=inputs[1:])), arrays


@records(layers.TimeDistributed)
def time_distributed(case: Cases) -> None:
    case("dense", "The steps run together.", lambda: layers.TimeDistributed(layers.Dense(4, activation="tanh")), FED)
    case(
        "conv",
        "The wrapped layer's weights looked for under its own name.",
        lambda: layers.TimeDistributed(layers.Conv2D(2, 2)),
        (2, 3, 4, 3, 2),
    )
    case("mask", "A mask lost, or applied.", lambda: [masked(), layers.TimeDistributed(layers.Dense(2)), layers.LSTM(2)], masked_ids())
    case(
        "model",
        "A model within refused, or its weights in another order.",
        lambda: layers.TimeDistributed(sequential(layers.Dense(4, activation="relu"), layers.Dense(2), shape=(3,), name="inner")),
        FED,
    )
    case("pooling", "The batch pooled over.", lambda: layers.TimeDistributed(layers.MaxPooling1D(2)), (2, 3, 4, 2))


def convolutional(case: Cases, layer: type, fed: tuple[int, ...]) -> None:
    for name, says, options in [
        ("last", "The gates in another order, or the recurrent product padded otherwise: it is always same.", {}),
        ("same", "The input's convolution without its stride.", {"padding": "same", "strides": 2, "return_sequences": True}),
        ("dilation", "The recurrent product dilated too.", {"dilation_rate": 2, "go_backwards": True}),
        ("activations", "The activations swapped.", {"activation": "relu", "recurrent_activation": "hard_sigmoid", "use_bias": False}),
    ]:
        case(name, says, lambda options=options: layer(2, 2, **options), fed)
    mask = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 1]], "bool")
    case(
        "mask",
        "A masked step that changes the state.",
        lambda: layer(2, 2, return_sequences=True),
        (3,) + fed[1:],
        mask,
        call=lambda layer, xs, mask: layer(xs, mask=mask),
        without_jax="JAX lays the mask along the last axes instead of the first",
    )
    case("states", "The states in another order.", lambda: layer(2, 2, return_state=True), fed, call=lambda layer, xs: layer(xs))


@records(layers.ConvLSTM1D)
def conv_lstm1d(case: Cases) -> None:
    convolutional(case, layers.ConvLSTM1D, (2, 3, 6, 2))


@records(layers.ConvLSTM2D)
def conv_lstm2d(case: Cases) -> None:
    convolutional(case, layers.ConvLSTM2D, (2, 3, 5, 4, 2))


@records(layers.ConvLSTM3D)
def conv_lstm3d(case: Cases) -> None:
    convolutional(case, layers.ConvLSTM3D, (2, 3, 4, 3, 4, 2))
