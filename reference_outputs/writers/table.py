"""The Keras versions whose files are recorded: each with the Python it runs on, what pip installs, and the script it runs."""

import dataclasses

OLD = "h5py==2.10.0 protobuf==3.17.3 PyYAML==5.4.1"


@dataclasses.dataclass(frozen=True)
class Writer:
    name: str  # the folder's name below written_by/
    writer: str  # as case.json says it
    python: str
    pins: str
    script: str  # keras1.py, keras2.py or keras3.py
    models: str  # which are recorded: all that the version can write would be too large
    backend: str = "tensorflow"


WRITERS = {
    w.name: w
    for w in (
        Writer("keras-1.2.2", "keras 1.2.2", "2.7.18", "keras==1.2.2 tensorflow==1.0.1 numpy==1.16.6 scipy==1.2.3 h5py==2.10.0 PyYAML==5.4.1", "keras1.py", "example3 images same deconvolution sequences fused merges branches branches_masked wrapped steps_masked old_layers old_activations volumes nested"),
        Writer("keras-1.2.2-theano", "keras 1.2.2", "2.7.18", "keras==1.2.2 theano==0.9.0 numpy==1.16.6 scipy==1.2.3 h5py==2.10.0 PyYAML==5.4.1", "keras1.py", "example3 images same sequences volumes", "theano"),
        Writer("keras-2.0.8", "keras 2.0.8", "3.6.15", f"keras==2.0.8 tensorflow==1.4.1 numpy==1.16.6 {OLD}", "keras2.py", "example3 images channels_first sequences nested wrapped"),
        Writer("keras-2.1.6", "keras 2.1.6", "3.6.15", f"keras==2.1.6 tensorflow==1.8.0 numpy==1.16.6 {OLD}", "keras2.py", "example3 sequences stacked_states cudnn"),
        Writer("keras-2.2.4", "keras 2.2.4", "3.7.16", f"keras==2.2.4 tensorflow==1.13.2 numpy==1.16.6 {OLD}", "keras2.py", "example3 enlarged images channels_first sequences nested frozen ports functions masks stacked_states cudnn cudnn_weights shared hdf5"),
        Writer("keras-2.2.4-theano", "keras 2.2.4", "3.6.15", f"keras==2.2.4 theano==1.0.5 numpy==1.16.6 {OLD}", "keras2.py", "channels_first", "theano"),
        Writer("keras-2.3.1", "keras 2.3.1", "3.7.16", f"keras==2.3.1 tensorflow==1.15.5 numpy==1.18.5 {OLD}", "keras2.py", "example3 enlarged sequences stacked_states cudnn"),
        Writer("tf-1.15", "tf.keras 2.2.4-tf", "3.7.16", f"tensorflow==1.15.5 numpy==1.18.5 {OLD}", "keras2.py", "example3 enlarged sequences frozen cudnn"),
        Writer("tf-2.1", "tf.keras 2.3.0-tf", "3.7.16", f"tensorflow-cpu==2.1.4 numpy==1.18.5 {OLD}", "keras2.py", "example3"),
        Writer("tf-2.4", "tf.keras 2.4.0", "3.8.18", "tensorflow-cpu==2.4.4 numpy==1.19.5 h5py==2.10.0 protobuf==3.20.3", "keras2.py", "example3 enlarged sequences time_major attention attention_masked half double operators_shapes preprocessing_images preprocessing_numbers hdf5 masks_ended small_epsilon"),
        Writer("tf-2.8", "keras 2.8.0", "3.8.18", "tensorflow-cpu==2.8.4 keras==2.8.0 numpy==1.23.5 protobuf==3.19.6", "keras2.py", "example3 nested frozen attention_masked operators_block preprocessing_images preprocessing_integers preprocessing_strings preprocessing_text training_only shared operators_more small_epsilon"),
        Writer("tf-2.12", "keras 2.12.0", "3.10.13", "tensorflow-cpu==2.12.1 keras==2.12.0 numpy==1.23.5", "keras2.py", "example3 images sequences nested attention operators_arithmetic operators_block preprocessing_strings hdf5"),
        Writer("tf-2.13", "keras 2.13.1", "3.10.13", "tensorflow-cpu==2.13.1 keras==2.13.1 numpy==1.24.3", "keras2.py", "example3 images sequences nested frozen ports masks directions time_major volumes functions attention attention_masked half operators_arithmetic operators_functions operators_shapes operators_products operators_block preprocessing_images preprocessing_numbers preprocessing_integers preprocessing_strings preprocessing_text shared several_axes small_epsilon"),
        Writer("tf_keras-2.15", "tf_keras 2.15.1", "3.10.13", "tensorflow-cpu==2.15.1 tf_keras==2.15.1 numpy==1.26.4", "keras2.py", "example3 images sequences nested attention_masked operators_products preprocessing_text"),
        Writer("tf_keras-2.21", "tf_keras 2.21.0", "3.11.7", "tensorflow-cpu==2.21.0 tf_keras==2.21.0", "keras2.py", "example3 images sequences nested frozen ports masks directions time_major volumes functions attention attention_masked half operators_arithmetic operators_functions operators_shapes operators_products operators_block preprocessing_images preprocessing_numbers preprocessing_integers preprocessing_strings preprocessing_text double shared operators_more masks_ended several_axes"),
        Writer("keras-3.0.5", "keras 3.0.5", "3.10.13", "keras==3.0.5 tensorflow-cpu==2.16.2 numpy==1.26.4", "keras3.py", "example3 images sequences cells nested shared ports masks masks_concatenated operators texts half"),
        Writer("keras-3.3.3", "keras 3.3.3", "3.10.13", "keras==3.3.3 tensorflow-cpu==2.16.2 numpy==1.26.4", "keras3.py", "example3 sequences nested shared attention int8 low_rank operators preprocessing"),
        Writer("keras-3.6.0", "keras 3.6.0", "3.10.13", "keras==3.6.0 tensorflow-cpu==2.18.1 numpy==1.26.4", "keras3.py", "example3 sequences nested masks attention int8 texts"),
        Writer("keras-3.10.0", "keras 3.10.0", "3.11.7", "keras==3.10.0 tensorflow-cpu==2.19.1 numpy==2.1.3", "keras3.py", "example3 sequences split nested shared attention int8 preprocessing"),
        Writer("keras-3.13", "keras 3.13.2", "3.11.7", "keras==3.13.2 tensorflow-cpu==2.20.0 numpy==2.2.6", "keras3.py", "example3 sequences nested masks_concatenated attention int8 int4 operators preprocessing"),
        Writer("keras-3.15.1", "keras 3.15.1", "3.11.7", "keras==3.15.1 tensorflow-cpu==2.21.0", "keras3.py", "example3 split nested shared masks_concatenated"),
    )
}
