"""The cases, one module per family of layers."""

from . import (  # noqa: F401
    activations,
    applications,
    attention,
    convolutional,
    core,
    examples,
    merging,
    models,
    normalization,
    ops,
    pooling,
    preprocessing,
    refused,
    regularization,
    reshaping,
    rnn,
)
