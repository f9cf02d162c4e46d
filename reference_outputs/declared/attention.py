"""Attention."""

import keras
import numpy as np
from keras import layers

from .case import ALL_FILES, Cases, inputs_for, masked, masked_ids, normal, records

QUERY, VALUE, KEY = (2, 3, 4), (2, 5, 4), (2, 5, 4)
QUERY_MASK = np.array([[1, 1, 0], [1, 0, 1]], "bool")
VALUE_MASK = np.array([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0]], "bool")


def by_scores(case: Cases, layer: type, variants: list[tuple[str, str, dict]]) -> None:
    for name, says, options in variants:
        case(name, says, lambda options=options: layer(**options), QUERY, VALUE)
    case("key", "Key and value swapped.", layer, QUERY, (2, 5, 4), KEY)
    case(
        "causal",
        "The diagonal masked, or the triangle turned round.",
        layer,
        QUERY,
        VALUE,
        call=lambda layer, *xs: layer(list(xs), use_causal_mask=True, return_attention_scores=True),
    )
    case(
        "masks",
        "A masked value attended to; a row masked throughout; a masked query's output is 0.",
        layer,
        QUERY,
        VALUE,
        QUERY_MASK,
        VALUE_MASK,
        call=lambda layer, q, v, q_mask, v_mask: layer([q, v], mask=[q_mask, v_mask], return_attention_scores=True),
        truth=False,  # 1e9 less, the scores of a row masked throughout are rounded to 64: all alike only in single precision
    )

    @case.model("masks_of_embeddings", "A mask that comes with the numbers ignored, or lost behind the layer.")
    def _(rng):
        ids, plain = masked_ids(), normal(rng, 5, 3, 3)
        first, second = inputs_for(ids, plain)
        query = masked()(first)
        outputs = [layer()([query, query]), layer()([second, query])]
        return keras.Model([first, second], [layers.GlobalAveragePooling1D()(outputs[0]), outputs[1]]), [ids[:4], plain[:4]]


@records(layers.Attention)
def attention(case: Cases) -> None:
    by_scores(
        case,
        layers.Attention,
        [
            ("dot", "Scores divided by a root: Keras does not.", {}),
            ("scale", "The learnt scale ignored.", {"use_scale": True}),
            ("concat", "tanh of the sum left out.", {"score_mode": "concat"}),
            ("concat_scale", "The weights in another order.", {"score_mode": "concat", "use_scale": True}),
            ("dropout", "Scores dropped at inference.", {"dropout": 0.5, "seed": 1}),
        ],
    )


@records(layers.AdditiveAttention)
def additive_attention(case: Cases) -> None:
    by_scores(
        case,
        layers.AdditiveAttention,
        [
            ("scale", "The learnt scale ignored.", {}),
            ("no_scale", "A scale expected where there is none.", {"use_scale": False}),
            ("dropout", "Scores dropped at inference.", {"dropout": 0.5, "seed": 1}),
        ],
    )


def by_heads(case: Cases, build, variants: list[tuple[str, str, dict]]) -> None:
    for name, says, options in variants:
        case(
            name,
            says,
            lambda options=options: build(**options),
            QUERY,
            VALUE,
            call=lambda layer, q, v: layer(q, v, return_attention_scores=True),
            files=ALL_FILES if name == "plain" else ("model.keras",),
        )
    case("key", "Key and value swapped.", build, QUERY, (2, 5, 4), KEY, call=lambda layer, q, v, k: layer(q, v, key=k))
    case(
        "causal",
        "The diagonal masked, or the triangle turned round.",
        build,
        QUERY,
        VALUE,
        call=lambda layer, q, v: layer(q, v, use_causal_mask=True, return_attention_scores=True),
    )
    allowed = np.array([[[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]] * 2, "bool")
    allowed[1, 0] = [0, 1, 0, 0, 0]
    case(
        "attention_mask",
        "A mask turned round; a query that may attend to nothing.",
        build,
        QUERY,
        VALUE,
        allowed,
        call=lambda layer, q, v, mask: layer(q, v, attention_mask=mask, return_attention_scores=True),
    )
    case(
        "masks",
        "The masks of query and value not joined; rows masked throughout.",
        build,
        QUERY,
        VALUE,
        QUERY_MASK,
        VALUE_MASK,
        call=lambda layer, q, v, q_mask, v_mask: layer(
            q, v, query_mask=q_mask, value_mask=v_mask, use_causal_mask=True, return_attention_scores=True
        ),
    )

    @case.model("masks_of_embeddings", "A mask that comes with the numbers ignored, or lost behind the layer.")
    def _(rng):
        ids, plain = masked_ids(), normal(rng, 5, 3, 3)
        first, second = inputs_for(ids, plain)
        query = masked()(first)
        outputs = [build()(query, query), build()(second, query)]
        return keras.Model([first, second], [layers.GlobalAveragePooling1D()(outputs[0]), outputs[1]]), [ids[:4], plain[:4]]


@records(layers.MultiHeadAttention)
def multi_head_attention(case: Cases) -> None:
    def build(**options: object) -> layers.Layer:
        return layers.MultiHeadAttention(**{"num_heads": 2, "key_dim": 3} | options)

    by_heads(
        case,
        build,
        [
            ("plain", "The scale taken from the width of the value, or the heads in another order.", {}),
            ("value_dim", "Values of another width than the keys.", {"value_dim": 2}),
            ("output_shape", "The output projected to the query's width.", {"output_shape": 5}),
            ("no_bias", "Biases expected where there are none.", {"use_bias": False}),
            ("gate", "The gate left out, or applied behind the output.", {"use_gate": True}),
            ("dropout", "Scores dropped at inference.", {"dropout": 0.5, "seed": 1}),
            ("sliding_window", "Positions outside the window attended to.", {"sliding_window": 2}),
        ],
    )
    for name, axes in [("axis_1", (1,)), ("axis_2", (2,)), ("both_axes", (1, 2))]:
        case(
            name,
            "Attention over another axis.",
            lambda axes=axes: build(attention_axes=axes),
            (2, 3, 2, 4),
            (2, 3, 2, 4),
            call=lambda layer, q, v: layer(q, v, return_attention_scores=True),
        )


@records(layers.GroupQueryAttention)
def group_query_attention(case: Cases) -> None:
    def build(**options: object) -> layers.Layer:
        given = {"head_dim": 3, "num_query_heads": 4, "num_key_value_heads": 2} | options
        return layers.GroupQueryAttention(**given)

    by_heads(
        case,
        build,
        [
            ("plain", "The shared heads repeated as a whole instead of each.", {}),
            ("one_head", "One head for all queries.", {"num_key_value_heads": 1}),
            ("no_bias", "Biases expected where there are none.", {"use_bias": False}),
            ("gate", "The gate left out, or applied behind the output.", {"use_gate": True}),
            ("dropout", "Scores dropped at inference.", {"dropout": 0.5, "seed": 1}),
        ],
    )
