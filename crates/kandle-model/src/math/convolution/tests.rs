use candle_core::Tensor;

use super::{convolution, depthwise, transposed, transposed_lengths};
use crate::math::{
    testing::{assert_close, assert_differentiable, numbers},
    window::{Padding, Window, lengths},
};

/// What a sum of products in float32 may differ by, as a part of the largest result.
const LIMIT: f32 = 5e-7;

struct Case {
    xs: &'static [usize],
    kernel: &'static [usize],
    strides: &'static [usize],
    padding: Padding,
    dilation: &'static [usize],
    groups: usize,
    dims: &'static [usize],
    keras: &'static [f32],
}

struct Transposed {
    xs: &'static [usize],
    kernel: &'static [usize],
    strides: &'static [usize],
    padding: Padding,
    output_padding: Option<&'static [usize]>,
    dilation: &'static [usize],
    dims: &'static [usize],
    keras: &'static [f32],
}

// from Keras 3.15.1, TensorFlow: Conv1D, Conv2D, Conv3D
#[rustfmt::skip]
const CONVOLUTIONS: &[Case] = &[
    Case { xs: &[1, 7, 2], kernel: &[3, 2, 2], strides: &[1], padding: Padding::Valid, dilation: &[1], groups: 1,
        dims: &[1, 5, 2], keras: &[3.4541016, -0.3515625, -1.3964844, 1.5693359, -1.6113281, -1.8359375,
        0.047851562, 2.9453125, -0.16699219, -0.45996094] },
    Case { xs: &[2, 5, 1], kernel: &[2, 1, 2], strides: &[2], padding: Padding::Same, dilation: &[1], groups: 1,
        dims: &[2, 3, 2], keras: &[1.4599609, 0.4658203, -2.28125, 1.0859375, 0.11425781, 0.005859375, -2.3203125,
        0.7832031, 1.2373047, -1.2597656, 0.76171875, 0.0390625] },
    Case { xs: &[1, 6, 2], kernel: &[3, 2, 2], strides: &[2], padding: Padding::Causal, dilation: &[1], groups: 1,
        dims: &[1, 3, 2], keras: &[1.890625, 0.8964844, 3.4541016, -0.3515625, -1.6113281, -1.8359375] },
    Case { xs: &[1, 7, 2], kernel: &[3, 2, 1], strides: &[1], padding: Padding::Causal, dilation: &[2], groups: 1,
        dims: &[1, 7, 1], keras: &[-0.96191406, -1.5703125, 0.12988281, 2.0263672, 0.32910156, -3.9921875,
        3.2265625] },
    Case { xs: &[1, 8, 4], kernel: &[3, 2, 4], strides: &[1], padding: Padding::Same, dilation: &[1], groups: 2,
        dims: &[1, 8, 4], keras: &[1.8935547, 1.0332031, 0.8310547, 0.013671875, 4.1503906, -0.47851562,
        2.4277344, -1.1503906, -2.243164, 1.3447266, -0.25585938, 1.4238281, 0.5361328, -1.2705078, -0.86816406,
        -0.24316406, -2.0107422, 0.75, -2.8613281, 3.0214844, 0.7685547, -1.8652344, -2.7832031, 2.0449219,
        -1.7783203, 0.15527344, -0.8310547, -0.70703125, -0.3173828, -0.859375, 1.0830078, -1.2900391] },
    Case { xs: &[1, 5, 5, 2], kernel: &[3, 3, 2, 2], strides: &[2, 2], padding: Padding::Same, dilation: &[1, 1],
        groups: 1, dims: &[1, 3, 3, 2], keras: &[0.0107421875, 3.8867188, 3.0283203, -6.0058594, 0.59472656,
        -0.3017578, 2.6845703, -4.0966797, -3.7148438, 0.21191406, -5.881836, 3.8007812, -2.5117188, 4.7246094,
        -3.1455078, 3.069336, 4.2226562, 0.37402344] },
    Case { xs: &[1, 4, 5, 1], kernel: &[2, 3, 1, 2], strides: &[1, 2], padding: Padding::Valid, dilation: &[1, 1],
        groups: 1, dims: &[1, 3, 2, 2], keras: &[2.555664, 2.1357422, -4.958008, 1.3935547, -0.74316406,
        2.1542969, -0.9580078, -1.2509766, -4.732422, 1.4824219, 2.3515625, -4.5859375] },
    Case { xs: &[1, 6, 6, 1], kernel: &[3, 2, 1, 1], strides: &[1, 1], padding: Padding::Same, dilation: &[2, 3],
        groups: 1, dims: &[1, 6, 6, 1], keras: &[-2.305664, -0.6542969, 1.4775391, -1.6181641, -1.3671875,
        0.18652344, -1.9931641, 0.49804688, -1.8085938, 2.3945312, -0.52734375, 0.23730469, 1.1328125, 3.6328125,
        -0.94433594, -0.8857422, 1.8359375, 1.1914062, 1.40625, -0.45410156, 2.2675781, -0.33691406, 1.125,
        -2.1826172, -0.0126953125, 0.2734375, -1.5830078, 1.1962891, 1.3671875, -2.2294922, -0.61816406,
        2.4501953, -2.069336, 0.5126953, -2.163086, 1.5390625] },
    Case { xs: &[1, 4, 4, 3], kernel: &[1, 1, 3, 2], strides: &[1, 1], padding: Padding::Valid, dilation: &[1, 1],
        groups: 1, dims: &[1, 4, 4, 2], keras: &[1.6474609, 1.5205078, 1.6865234, 1.6572266, 1.7255859, 1.7939453,
        0.97558594, -2.5078125, 1.0146484, -2.3710938, 1.0537109, -2.234375, 1.0927734, -2.0976562, -2.3203125,
        0.89941406, -2.28125, 1.0361328, -2.2421875, 1.1728516, -2.203125, 1.3095703, 1.6826172, 1.6435547,
        1.7216797, 1.7802734, 0.9716797, -2.5214844, 1.0107422, -2.3847656, 1.0498047, -2.2480469] },
    Case { xs: &[1, 5, 4, 3], kernel: &[1, 1, 3, 2], strides: &[2, 3], padding: Padding::Same, dilation: &[1, 1],
        groups: 1, dims: &[1, 3, 2, 2], keras: &[1.6474609, 1.5205078, 0.97558594, -2.5078125, -2.28125,
        1.0361328, 1.6826172, 1.6435547, 1.0888672, -2.1113281, -2.2460938, 1.1591797] },
    Case { xs: &[1, 3, 3, 4], kernel: &[2, 2, 1, 8], strides: &[1, 1], padding: Padding::Valid, dilation: &[1, 1],
        groups: 4, dims: &[1, 2, 2, 8], keras: &[3.0517578, -0.55078125, 0.6699219, -0.6425781, 0.24804688,
        -0.94433594, -1.2714844, -0.765625, -0.80859375, -0.57714844, 0.33496094, -0.10253906, 0.28222656,
        -1.4160156, -0.17773438, -0.17773438, -0.8359375, -0.23535156, -0.33496094, 0.97753906, -0.9316406,
        0.0078125, -1.9355469, 0.70214844, -0.8496094, -0.064453125, -0.6699219, 1.5175781, -0.20703125,
        0.2265625, -1.5322266, 0.5996094] },
    Case { xs: &[1, 3, 4, 6], kernel: &[1, 1, 2, 3], strides: &[1, 1], padding: Padding::Same, dilation: &[1, 1],
        groups: 3, dims: &[1, 3, 4, 3], keras: &[2.272461, -0.359375, 1.3916016, 0.94433594, -0.2421875,
        -1.484375, -0.38378906, 0.072265625, 0.078125, -1.7119141, 0.18945312, -1.8115234, -0.1796875, 0.30664062,
        -0.24902344, -1.5078125, -0.36523438, 1.3134766, 1.0107422, -0.24804688, -1.5625, -0.3173828, 0.06640625,
        0.0, -1.6455078, 0.18359375, -1.8896484, -0.11328125, 0.30078125, -0.32714844, -1.4414062, -0.37109375,
        1.2353516, 1.0771484, -0.25390625, -1.640625] },
    Case { xs: &[1, 5, 5, 2], kernel: &[2, 2, 2, 1], strides: &[3, 3], padding: Padding::Same, dilation: &[1, 1],
        groups: 1, dims: &[1, 2, 2, 1], keras: &[2.6103516, 2.9423828, -1.2529297, 2.9257812] },
    Case { xs: &[1, 5, 5, 16], kernel: &[3, 2, 16, 1], strides: &[2, 2], padding: Padding::Same, dilation: &[1,
        1], groups: 1, dims: &[1, 3, 3, 1], keras: &[1.6074219, 0.40234375, -4.1015625, -8.93457, 9.123047,
        -6.53125, -12.7265625, -3.0615234, 2.2998047] },
    Case { xs: &[1, 5, 5, 16], kernel: &[2, 3, 16, 1], strides: &[1, 1], padding: Padding::Valid, dilation: &[2,
        2], groups: 1, dims: &[1, 3, 1, 1], keras: &[7.234375, 34.08203, -29.615234] },
    Case { xs: &[1, 3, 3, 16], kernel: &[2, 2, 4, 4], strides: &[1, 1], padding: Padding::Valid, dilation: &[1,
        1], groups: 4, dims: &[1, 2, 2, 4], keras: &[-0.95996094, 2.569336, 4.024414, 4.9833984, -4.243164,
        -3.7773438, -0.45410156, 0.7949219, 0.82910156, -6.4101562, -7.3398438, -7.8779297, -0.77734375,
        -3.288086, -2.546875, -5.7539062] },
    Case { xs: &[1, 3, 4, 3, 2], kernel: &[2, 2, 3, 2, 2], strides: &[1, 2, 2], padding: Padding::Same, dilation:
        &[1, 1, 1], groups: 1, dims: &[1, 3, 2, 2, 2], keras: &[-3.046875, 1.2246094, -0.7607422, 4.1757812,
        4.080078, -4.129883, 4.3125, -0.56933594, 5.1904297, -1.8896484, 0.31152344, -3.4404297, -5.140625,
        -2.1152344, -0.5332031, -0.4921875, -0.08203125, 1.9238281, -0.78222656, -2.241211, -2.4101562, 4.6484375,
        -2.6083984, 4.6347656] },
    Case { xs: &[1, 3, 4, 3, 2], kernel: &[2, 2, 2, 2, 1], strides: &[2, 2, 1], padding: Padding::Valid, dilation:
        &[1, 1, 1], groups: 1, dims: &[1, 1, 2, 2, 1], keras: &[-1.0800781, -6.220703, 7.036133, 3.9667969] },
];

// from Keras 3.15.1, TensorFlow: keras.ops.depthwise_conv
#[rustfmt::skip]
const DEPTHWISE: &[Case] = &[
    Case { xs: &[1, 7, 2], kernel: &[3, 2, 2], strides: &[2], padding: Padding::Same, dilation: &[1], groups: 1,
        dims: &[1, 4, 4], keras: &[-1.46875, -2.4082031, -0.85253906, 1.1777344, 0.41015625, 0.08496094,
        -1.8066406, 1.484375, 0.72265625, 1.8427734, -0.6748047, 1.1025391, -0.72558594, -0.47265625, -2.1074219,
        1.8056641] },
    Case { xs: &[1, 8, 2], kernel: &[3, 2, 1], strides: &[2], padding: Padding::Same, dilation: &[2], groups: 1,
        dims: &[1, 4, 2], keras: &[0.5859375, 1.4404297, -1.8066406, -2.1855469, 1.4345703, 1.3173828, -1.9121094,
        0.091796875] },
    Case { xs: &[1, 5, 5, 2], kernel: &[3, 3, 2, 1], strides: &[2, 2], padding: Padding::Same, dilation: &[1, 1],
        groups: 1, dims: &[1, 3, 3, 2], keras: &[2.0019531, 0.59375, 1.5332031, 0.17578125, -1.6376953,
        -0.19824219, -0.12792969, 3.078125, -2.3730469, -3.7304688, -1.1669922, -0.6923828, 0.8691406, -1.8974609,
        1.640625, 0.859375, 1.578125, -0.31347656] },
    Case { xs: &[1, 4, 4, 2], kernel: &[2, 2, 2, 2], strides: &[1, 1], padding: Padding::Valid, dilation: &[1, 1],
        groups: 1, dims: &[1, 3, 3, 4], keras: &[0.13183594, 1.3964844, 0.94433594, -0.13671875, -1.7109375,
        -0.69921875, -3.96875, 3.6728516, 0.29296875, -2.5976562, 1.7705078, -1.7890625, -3.1953125, 0.70703125,
        -1.7431641, 1.1943359, -1.1914062, -1.1914062, -1.3300781, 0.36816406, 0.8125, -3.0898438, 1.6474609,
        -1.5429688, -2.6757812, 0.21484375, -3.7402344, 3.2158203, -0.671875, -1.6835938, 1.9990234, -2.2460938,
        1.4306641, 0.16601562, 1.5244141, -1.296875] },
    Case { xs: &[1, 5, 6, 1], kernel: &[2, 2, 1, 3], strides: &[2, 2], padding: Padding::Valid, dilation: &[2, 2],
        groups: 1, dims: &[1, 2, 2, 3], keras: &[1.7353516, -0.90234375, 1.0957031, -0.46777344, 0.29101562,
        1.0498047, 0.8457031, 0.33984375, -3.4208984, 0.51660156, -0.2421875, 1.0703125] },
    Case { xs: &[1, 5, 5, 2], kernel: &[3, 2, 2, 1], strides: &[1, 1], padding: Padding::Same, dilation: &[2, 2],
        groups: 1, dims: &[1, 5, 5, 2], keras: &[-1.6484375, -0.45703125, 1.2490234, 1.0458984, 2.8027344,
        -2.9794922, -2.84375, 0.984375, -0.36914062, -0.043945312, 0.8144531, 1.9160156, -1.5361328, -3.102539,
        -2.6455078, 0.8613281, 0.8808594, 1.2744141, 1.6816406, -1.2392578, 1.3359375, 0.095703125, -0.6455078,
        -0.19921875, -0.86035156, 1.03125, 4.2509766, -2.3740234, -0.45117188, 1.9902344, -0.7685547, -1.4853516,
        -1.4472656, 0.056640625, 2.4003906, -0.984375, 0.921875, -0.25, -1.6513672, 0.31640625, -1.2998047,
        0.65527344, 2.5029297, -1.203125, 1.0244141, -0.46875, -2.4267578, 0.46289062, 0.16699219, -1.3085938] },
];

// from Keras 3.15.1, TensorFlow: keras.ops.conv_transpose
#[rustfmt::skip]
const TRANSPOSED: &[Transposed] = &[
    Transposed { xs: &[1, 4, 2], kernel: &[3, 2, 2], strides: &[1], padding: Padding::Valid, output_padding: None,
        dilation: &[1], dims: &[1, 6, 2], keras: &[1.9296875, -1.3408203, -1.7978516, 2.6523438, 0.8378906,
        -3.1240234, 1.8730469, 1.4921875, -0.09082031, -0.59765625, 1.2861328, -1.0664062] },
    Transposed { xs: &[1, 4, 2], kernel: &[2, 1, 2], strides: &[3], padding: Padding::Valid, output_padding: None,
        dilation: &[1], dims: &[1, 12, 1], keras: &[1.9296875, -1.3408203, 0.0, -0.8359375, 1.953125, 0.0,
        0.047851562, -1.0654297, 0.0, 1.1289062, -1.2236328, 0.0] },
    Transposed { xs: &[1, 4, 2], kernel: &[2, 1, 2], strides: &[3], padding: Padding::Same, output_padding: None,
        dilation: &[1], dims: &[1, 12, 1], keras: &[1.9296875, -1.3408203, 0.0, -0.8359375, 1.953125, 0.0,
        0.047851562, -1.0654297, 0.0, 1.1289062, -1.2236328, 0.0] },
    Transposed { xs: &[1, 3, 2], kernel: &[4, 2, 2], strides: &[2], padding: Padding::Same, output_padding:
        Some(&[1]), dilation: &[1], dims: &[1, 5, 2], keras: &[-0.96191406, 0.69921875, 1.5244141, 1.0429688,
        -2.1015625, -0.018554688, -0.67871094, 0.9970703, 0.009765625, -0.3857422] },
    Transposed { xs: &[1, 3, 1], kernel: &[3, 1, 1], strides: &[2], padding: Padding::Same, output_padding:
        Some(&[0]), dilation: &[1], dims: &[1, 5, 1], keras: &[0.09765625, -1.2138672, 0.025390625, -1.3583984,
        -0.046875] },
    Transposed { xs: &[1, 3, 1], kernel: &[3, 1, 1], strides: &[2], padding: Padding::Same, output_padding:
        Some(&[1]), dilation: &[1], dims: &[1, 6, 1], keras: &[1.9042969, 0.09765625, -1.2138672, 0.025390625,
        -1.3583984, -0.046875] },
    Transposed { xs: &[1, 3, 1], kernel: &[4, 2, 1], strides: &[3], padding: Padding::Valid, output_padding:
        Some(&[2]), dilation: &[1], dims: &[1, 12, 2], keras: &[1.9042969, 0.09765625, -1.7089844, 1.4160156,
        -0.390625, -2.1972656, 1.4228516, -0.8535156, -0.44433594, 0.36816406, -0.1015625, -0.57128906,
        -0.67285156, -0.27539062, 0.8203125, -0.6796875, 0.1875, 1.0546875, -0.4453125, 0.421875, 0.0, 0.0, 0.0,
        0.0] },
    Transposed { xs: &[1, 4, 1], kernel: &[3, 2, 1], strides: &[1], padding: Padding::Same, output_padding: None,
        dilation: &[2], dims: &[1, 4, 2], keras: &[-2.6230469, 1.3691406, 1.0791016, 0.44628906, 0.4296875,
        -2.8769531, -1.46875, 0.56152344] },
    Transposed { xs: &[1, 3, 2], kernel: &[1, 2, 2], strides: &[2], padding: Padding::Valid, output_padding:
        Some(&[0]), dilation: &[1], dims: &[1, 5, 2], keras: &[1.9296875, -1.3408203, 0.0, 0.0, -0.8359375,
        1.953125, 0.0, 0.0, 0.047851562, -1.0654297] },
    Transposed { xs: &[1, 3, 2, 2], kernel: &[3, 3, 2, 2], strides: &[2, 2], padding: Padding::Same,
        output_padding: None, dilation: &[1, 1], dims: &[1, 6, 4, 2], keras: &[1.9296875, -1.3408203, -0.96191406,
        0.69921875, 1.5244141, 1.0429688, -1.5703125, -1.1484375, -0.53125, 1.1298828, -2.140625, -0.4794922,
        -1.5615234, 0.5214844, 1.75, 2.171875, -1.6621094, -1.1142578, 1.8007812, 2.6445312, 1.5449219,
        -1.1201172, -1.1689453, -0.140625, 1.2587891, 0.44140625, -0.671875, -1.4892578, 1.2773438, 1.0664062,
        -1.515625, -0.9091797, -2.5205078, 0.36914062, 0.2998047, -1.1503906, -4.810547, 4.506836, -1.3876953,
        0.009765625, -0.69921875, -1.3320312, 2.375, 1.7421875, -2.5908203, -2.4326172, 1.53125, 2.3222656] },
    Transposed { xs: &[1, 2, 3, 1], kernel: &[2, 3, 1, 1], strides: &[3, 2], padding: Padding::Valid,
        output_padding: Some(&[1, 0]), dilation: &[1, 1], dims: &[1, 6, 7, 1], keras: &[1.9042969, 0.09765625,
        -1.2138672, 0.025390625, -1.3583984, -0.046875, 0.8203125, 1.4160156, -0.390625, -1.8291016, -0.1015625,
        -1.2509766, 0.1875, 1.0546875, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.5234375, 0.078125, -1.2529297,
        0.005859375, -1.3974609, -0.06640625, 1.1621094, 1.1328125, -0.3125, -1.6728516, -0.0234375, -1.0947266,
        0.265625, 1.4941406, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0] },
    Transposed { xs: &[1, 2, 3, 2], kernel: &[2, 4, 1, 2], strides: &[1, 3], padding: Padding::Same,
        output_padding: None, dilation: &[1, 1], dims: &[1, 2, 9, 1], keras: &[1.9296875, -1.3408203, -0.96191406,
        -0.13671875, 1.953125, -1.5703125, -1.1005859, -1.0654297, 1.4707031, 3.4892578, -2.133789, -0.4580078,
        -0.55371094, 4.1328125, -1.9960938, -2.9267578, 0.6347656, -0.6738281] },
    Transposed { xs: &[1, 3, 3, 1], kernel: &[2, 2, 1, 1], strides: &[1, 1], padding: Padding::Valid,
        output_padding: None, dilation: &[2, 2], dims: &[1, 5, 5, 1], keras: &[1.9042969, 0.4951172, -0.81640625,
        0.025390625, -0.046875, 1.5234375, 0.11425781, -1.2167969, 0.005859375, -0.06640625, -0.56640625,
        -0.7109375, 0.6191406, 0.3544922, -0.765625, -1.3671875, -0.10253906, 2.2949219, 0.08496094, -0.9628906,
        -1.0253906, 0.23925781, 2.3535156, -0.19824219, -1.2460938] },
    Transposed { xs: &[1, 2, 2, 2, 2], kernel: &[2, 3, 2, 1, 2], strides: &[2, 1, 2], padding: Padding::Same,
        output_padding: None, dilation: &[1, 1, 1], dims: &[1, 4, 2, 4, 1], keras: &[-0.9140625, -0.36621094,
        -0.44140625, -2.3720703, 3.8310547, -0.25683594, -0.6533203, 2.7421875, -0.88183594, -0.038085938,
        1.9804688, 3.008789, -0.77246094, 0.07128906, -2.8671875, -1.8388672, -0.20703125, -2.274414, -0.5234375,
        -2.40625, -0.6923828, 2.5664062, -0.63964844, 2.803711, 3.3671875, 2.2861328, 1.4951172, 3.2617188,
        -1.7539062, -2.834961, -3.256836, -1.4902344] },
    Transposed { xs: &[1, 2, 2, 1, 1], kernel: &[2, 2, 3, 2, 1], strides: &[1, 2, 3], padding: Padding::Valid,
        output_padding: None, dilation: &[1, 1, 1], dims: &[1, 3, 4, 3, 2], keras: &[1.9042969, 0.09765625,
        -1.7089844, 1.4160156, -0.390625, -2.1972656, 0.9277344, -0.87890625, 2.2460938, 0.43945312, -1.3671875,
        1.7578125, 0.4951172, 0.025390625, -0.44433594, 0.36816406, -0.1015625, -0.57128906, 0.24121094,
        -0.22851562, 0.5839844, 0.11425781, -0.35546875, 0.45703125, -0.9628906, -1.9023438, 2.0898438,
        -1.2167969, -2.15625, 1.8359375, -1.4707031, 2.5214844, -0.78515625, -1.7246094, 2.2675781, -1.0390625,
        1.5107422, -0.40429688, -1.0371094, 0.99316406, -0.921875, -1.5546875, 0.47558594, -0.15722656, 1.8730469,
        -0.041992188, -0.6748047, 1.3554688, 0.0234375, 0.890625, -0.609375, 0.2578125, 1.125, -0.375, 0.4921875,
        -1.0078125, -0.140625, 0.7265625, -0.7734375, 0.09375, -0.0390625, -1.484375, 1.015625, -0.4296875,
        -1.875, 0.625, -0.8203125, 1.6796875, 0.234375, -1.2109375, 1.2890625, -0.15625] },
];

fn spatial(dims: &[usize]) -> Vec<Option<usize>> {
    dims[1..dims.len() - 1].iter().copied().map(Some).collect()
}

fn windows(kernel: &[usize], strides: &[usize], dilation: &[usize]) -> Vec<Window> {
    Window::all(&kernel[..kernel.len() - 2], strides, dilation).unwrap()
}

#[test]
fn convolutions_are_those_of_keras() {
    for case in CONVOLUTIONS {
        let what = format!("{:?} by {:?}", case.xs, case.kernel);
        let (xs, kernel) = (numbers(case.xs, 0), numbers(case.kernel, 1));
        let ys = convolution(&xs, &kernel, case.strides, case.padding, case.dilation, case.groups).unwrap();
        assert_close(&what, &ys, case.dims, case.keras, LIMIT);
        let windows = windows(case.kernel, case.strides, case.dilation);
        assert_eq!(lengths(&spatial(case.xs), &windows, case.padding).unwrap(), spatial(case.dims), "{what}");
        assert_differentiable(&what, &[case.xs, case.kernel], |operands| {
            convolution(&operands[0], &operands[1], case.strides, case.padding, case.dilation, case.groups)
        });
    }
}

#[test]
fn depthwise_convolutions_are_those_of_keras() {
    for case in DEPTHWISE {
        let what = format!("{:?} by {:?}", case.xs, case.kernel);
        let (xs, kernel) = (numbers(case.xs, 0), numbers(case.kernel, 1));
        let ys = depthwise(&xs, &kernel, case.strides, case.padding, case.dilation).unwrap();
        assert_close(&what, &ys, case.dims, case.keras, LIMIT);
        assert_differentiable(&what, &[case.xs, case.kernel], |operands| {
            depthwise(&operands[0], &operands[1], case.strides, case.padding, case.dilation)
        });
    }
}

#[test]
fn transposed_convolutions_are_those_of_keras() {
    for case in TRANSPOSED {
        let what = format!("{:?} by {:?} with {:?}", case.xs, case.kernel, case.output_padding);
        let (xs, kernel) = (numbers(case.xs, 0), numbers(case.kernel, 1));
        let transpose = |xs: &Tensor, kernel: &Tensor| {
            transposed(xs, kernel, case.strides, case.padding, case.output_padding, case.dilation)
        };
        assert_close(&what, &transpose(&xs, &kernel).unwrap(), case.dims, case.keras, LIMIT);
        let windows = windows(case.kernel, case.strides, case.dilation);
        let found = transposed_lengths(&spatial(case.xs), &windows, case.padding, case.output_padding).unwrap();
        assert_eq!(found, spatial(case.dims), "{what}");
        let unknown = vec![None; windows.len()];
        assert_eq!(transposed_lengths(&unknown, &windows, case.padding, case.output_padding).unwrap(), unknown);
        assert_differentiable(&what, &[case.xs, case.kernel], |operands| transpose(&operands[0], &operands[1]));
    }
}

#[test]
fn tiles_give_what_one_product_gives() {
    let (xs, kernel) = (numbers(&[2, 40, 40, 64], 0), numbers(&[3, 3, 64, 5], 1));
    let ys = convolution(&xs, &kernel, &[1, 1], Padding::Same, &[1, 1], 1).unwrap();
    // A variable is computed without tiles.
    let tracked = candle_core::Var::from_tensor(&xs).unwrap();
    let whole = convolution(tracked.as_tensor(), &kernel, &[1, 1], Padding::Same, &[1, 1], 1).unwrap();
    let whole = whole.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_close("tiles", &ys, &[2, 40, 40, 5], &whole, 1e-7);
}

#[test]
fn nothing_spreads_beyond_its_windows() {
    let mut values = vec![1.0_f32; 9];
    values[4] = f32::NAN;
    let xs = Tensor::from_vec(values, (1, 9, 1), &candle_core::Device::Cpu).unwrap();
    let kernel = numbers(&[3, 1, 1], 1);
    let seen = |ys: Tensor| {
        ys.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|number| number.is_nan()).collect::<Vec<bool>>()
    };
    let expected: Vec<bool> = (0..9).map(|at| (3..6).contains(&at)).collect();
    assert_eq!(seen(convolution(&xs, &kernel, &[1], Padding::Same, &[1], 1).unwrap()), expected);
    assert_eq!(seen(depthwise(&xs, &kernel, &[1], Padding::Same, &[1]).unwrap()), expected);
    assert_eq!(seen(transposed(&xs, &kernel, &[1], Padding::Same, None, &[1]).unwrap()), expected);
}

#[test]
fn what_does_not_fit_is_refused() {
    let (xs, kernel) = (numbers(&[1, 3, 4], 0), numbers(&[4, 2, 4], 1));
    let refused = |kernel, padding, strides, dilation, groups| {
        convolution(&xs, kernel, &[strides], padding, &[dilation], groups).is_err()
    };
    assert!(refused(&kernel, Padding::Valid, 1, 1, 2));
    assert!(!refused(&kernel, Padding::Same, 1, 1, 2));
    assert!(refused(&kernel, Padding::Same, 1, 1, 1));
    assert!(refused(&kernel, Padding::Same, 1, 1, 0));
    assert!(refused(&kernel, Padding::Same, 0, 1, 2));
    assert!(refused(&kernel, Padding::Same, 1, usize::MAX, 2));
    // A dilation beyond the axis costs nothing.
    assert!(!refused(&kernel, Padding::Same, 1, usize::MAX / 4, 2));
    assert!(depthwise(&xs, &numbers(&[2, 3, 1], 1), &[1], Padding::Valid, &[1]).is_err());
    assert!(transposed(&xs, &numbers(&[2, 1, 4], 1), &[1], Padding::Causal, None, &[1]).is_err());
    assert!(transposed(&xs, &numbers(&[2, 1, 4], 1), &[usize::MAX], Padding::Same, None, &[1]).is_err());
}
