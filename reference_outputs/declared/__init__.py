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
    operations,
    ops,
    pooling,
    preprocessing,
    pytorch,
    refused,
    regularization,
    reshaping,
    rnn,
)
