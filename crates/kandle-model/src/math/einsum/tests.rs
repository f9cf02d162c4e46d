use super::{Equation, einsum, matmul, matmul_shape, shape, tensordot, tensordot_shape};
use crate::math::testing::{assert_close, assert_differentiable, numbers};

/// What a sum of products in float32 may differ by, as a part of the largest result.
const LIMIT: f32 = 5e-7;

struct Case {
    equation: &'static str,
    operands: &'static [&'static [usize]],
    dims: &'static [usize],
    keras: &'static [f32],
}

// from Keras 3.15.1, TensorFlow: keras.ops.einsum
#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { equation: "ij,jk->ik", operands: &[&[2, 3], &[3, 2]], dims: &[2, 2], keras: &[1.6474609, 1.5205078,
        1.6865234, 1.6572266] },
    Case { equation: "bij,bjk->bik", operands: &[&[2, 2, 3], &[2, 3, 2]], dims: &[2, 2, 2], keras: &[1.6474609,
        1.5205078, 1.6865234, 1.6572266, 1.4453125, -2.1357422, -1.6777344, 1.1513672] },
    Case { equation: "abc,cd->abd", operands: &[&[2, 1, 3], &[3, 2]], dims: &[2, 1, 2], keras: &[1.6474609,
        1.5205078, 1.6865234, 1.6572266] },
    Case { equation: "bqhd,bkhd->bhqk", operands: &[&[1, 2, 2, 3], &[1, 3, 2, 3]], dims: &[1, 2, 2, 3], keras:
        &[2.75, -0.37890625, -1.140625, 2.6328125, -1.296875, -0.88671875, 2.6035156, -0.92578125, -1.1015625,
        -1.3662109, 2.2929688, 1.3164062] },
    Case { equation: "bhqk,bkhd->bqhd", operands: &[&[1, 2, 2, 3], &[1, 3, 2, 2]], dims: &[1, 2, 2, 2], keras:
        &[0.7246094, -0.6845703, 0.047851562, -0.57421875, -0.02734375, -0.35253906, -2.2841797, 2.5175781] },
    Case { equation: "...ij,...jk->...ik", operands: &[&[2, 1, 2, 3], &[3, 3, 2]], dims: &[2, 3, 2, 2], keras:
        &[1.6474609, 1.5205078, 1.6865234, 1.6572266, 2.1679688, -1.6083984, 1.8066406, -1.8720703, 1.40625,
        -2.3701172, 1.6308594, -2.0478516, 1.7255859, 1.7939453, 0.97558594, -2.5078125, 1.4453125, -2.1357422,
        -1.6777344, 1.1513672, 1.8554688, -1.7255859, -2.6542969, 0.17480469] },
    Case { equation: "...i,...i->...", operands: &[&[2, 1, 3], &[5, 3]], dims: &[2, 5], keras: &[2.75, 2.3691406,
        -0.37890625, -0.7597656, -1.140625, 2.6914062, 2.6035156, -0.8378906, -0.92578125, -1.0136719] },
    Case { equation: "i...->...", operands: &[&[2, 3]], dims: &[3], keras: &[-2.8125, -0.5, 1.8125] },
    Case { equation: "ij...,jk...->ik...", operands: &[&[2, 3, 2], &[3, 2, 2]], dims: &[2, 2, 2], keras:
        &[2.2265625, -2.03125, -2.2363281, -1.5302734, 0.72265625, -0.4794922, -1.3769531, 1.1025391] },
    Case { equation: "ij->ji", operands: &[&[2, 3]], dims: &[3, 2], keras: &[-1.5625, -1.25, -0.40625, -0.09375,
        0.75, 1.0625] },
    Case { equation: "ij->", operands: &[&[2, 3]], dims: &[], keras: &[-1.5] },
    Case { equation: "ii", operands: &[&[3, 3]], dims: &[], keras: &[-0.28125] },
    Case { equation: "ii->i", operands: &[&[3, 3]], dims: &[3], keras: &[-1.5625, -0.09375, 1.375] },
    Case { equation: "i...i->...", operands: &[&[3, 2, 3]], dims: &[2], keras: &[-2.5, -1.5625] },
    Case { equation: "iij,jk->ik", operands: &[&[3, 3, 2], &[2, 2]], dims: &[3, 2], keras: &[1.4599609, 0.4658203,
        -2.359375, 0.48046875, -2.3320312, 0.6923828] },
    Case { equation: "ij,ij", operands: &[&[2, 3], &[2, 3]], dims: &[], keras: &[5.3535156] },
    Case { equation: "ij,ij->ij", operands: &[&[2, 3], &[2, 3]], dims: &[2, 3], keras: &[1.9042969, 0.025390625,
        0.8203125, 1.1328125, -0.0234375, 1.4941406] },
    Case { equation: "ij,ij->i", operands: &[&[2, 3], &[2, 3]], dims: &[2], keras: &[2.75, 2.6035156] },
    Case { equation: "i,j->ij", operands: &[&[2], &[3]], dims: &[2, 3], keras: &[1.9042969, 0.09765625,
        -1.7089844, 0.4951172, 0.025390625, -0.44433594] },
    Case { equation: "ij,k->i", operands: &[&[2, 3], &[2]], dims: &[2], keras: &[1.5615234, 0.36035156] },
    Case { equation: "bA,Ac", operands: &[&[2, 3], &[3, 2]], dims: &[2, 2], keras: &[1.6474609, 1.5205078,
        1.6865234, 1.6572266] },
    Case { equation: "ab,bc,cd->ad", operands: &[&[2, 3], &[3, 2], &[2, 3]], dims: &[2, 3], keras: &[-2.296814,
        1.3661499, 0.23001099, -2.407898, 1.458313, 0.09390259] },
    Case { equation: "a,ab,b->", operands: &[&[2], &[2, 3], &[3]], dims: &[], keras: &[-5.267395] },
    Case { equation: " i j , j k -> i k ", operands: &[&[2, 3], &[3, 2]], dims: &[2, 2], keras: &[1.6474609,
        1.5205078, 1.6865234, 1.6572266] },
    Case { equation: "...,...->...", operands: &[&[2, 3], &[3]], dims: &[2, 3], keras: &[1.9042969, 0.025390625,
        0.8203125, 1.5234375, 0.005859375, 1.1621094] },
    Case { equation: ",ij->ij", operands: &[&[], &[2, 3]], dims: &[2, 3], keras: &[1.9042969, 0.09765625,
        -1.7089844, 1.4160156, -0.390625, -2.1972656] },
    Case { equation: "ij->i...", operands: &[&[2, 3]], dims: &[2], keras: &[-1.21875, -0.28125] },
    Case { equation: "aib,bjc->aijc", operands: &[&[2, 2, 2], &[2, 2, 2]], dims: &[2, 2, 2, 2], keras:
        &[1.8027344, -0.4736328, -1.4677734, 1.1875, -1.2265625, -1.8046875, 1.5625, -1.3828125, 0.3798828, 1.5,
        -0.73339844, 0.6826172, 1.1972656, 0.36621094, -1.1552734, 0.97265625] },
];

// from Keras 3.15.1, TensorFlow: keras.ops.matmul
#[allow(clippy::type_complexity)]
#[rustfmt::skip]
const MATMUL: &[(&[usize], &[usize], &[usize], &[f32])] = &[
    (&[2, 3], &[3, 2], &[2, 2], &[1.6474609, 1.5205078, 1.6865234, 1.6572266]),
    (&[3], &[3], &[], &[2.75]),
    (&[3], &[3, 2], &[2], &[1.6474609, 1.5205078]),
    (&[2, 3], &[3], &[2], &[2.75, 2.6914062]),
    (&[2, 2, 3], &[3, 2], &[2, 2, 2], &[1.6474609, 1.5205078, 1.6865234, 1.6572266, 1.7255859, 1.7939453,
        0.97558594, -2.5078125]),
    (&[2, 3], &[2, 3, 2], &[2, 2, 2], &[1.6474609, 1.5205078, 1.6865234, 1.6572266, 2.1679688, -1.6083984,
        1.8066406, -1.8720703]),
    (&[3], &[2, 3, 2], &[2, 2], &[1.6474609, 1.5205078, 2.1679688, -1.6083984]),
    (&[2, 2, 3], &[3], &[2, 2], &[2.75, 2.6914062, 2.6328125, -0.8779297]),
    (&[2, 1, 2, 3], &[3, 3, 1], &[2, 3, 2, 1], &[2.75, 2.6914062, 2.3691406, 2.6035156, -0.37890625, -0.8378906,
        2.6328125, -0.8779297, 2.8378906, -1.3662109, -1.296875, 2.78125]),
    (&[1, 2, 3], &[2, 3, 2], &[2, 2, 2], &[1.6474609, 1.5205078, 1.6865234, 1.6572266, 2.1679688, -1.6083984,
        1.8066406, -1.8720703]),
];

// from Keras 3.15.1, TensorFlow: keras.ops.tensordot
#[allow(clippy::type_complexity)]
#[rustfmt::skip]
const TENSORDOT: &[(&[usize], &[usize], &[usize], &[usize], &[usize], &[f32])] = &[
    (&[2, 3], &[3, 2], &[1], &[0], &[2, 2], &[1.6474609, 1.5205078, 1.6865234, 1.6572266]),
    (&[2, 3, 2], &[2, 3, 2], &[1, 0], &[1, 2], &[2, 2], &[2.2607422, -1.7441406, -2.1191406, 4.9189453]),
    (&[2, 3, 4], &[4, 3, 2], &[2, 1], &[0, 1], &[2, 2], &[2.5478516, 4.3027344, 0.36914062, -0.94921875]),
    (&[2], &[3], &[], &[], &[2, 3], &[1.9042969, 0.09765625, -1.7089844, 0.4951172, 0.025390625, -0.44433594]),
    (&[2, 3], &[2, 3], &[0, 1], &[0, 1], &[], &[5.3535156]),
];

fn known(dims: &[usize]) -> Vec<Option<usize>> {
    dims.iter().copied().map(Some).collect()
}

#[test]
fn einsum_is_that_of_keras() {
    for case in CASES {
        let equation = Equation::parse(case.equation).unwrap();
        let operands: Vec<_> = case.operands.iter().enumerate().map(|(at, dims)| numbers(dims, at)).collect();
        let ys = einsum(&equation, &operands.iter().collect::<Vec<_>>()).unwrap();
        assert_close(case.equation, &ys, case.dims, case.keras, LIMIT);
        let axes: Vec<_> = case.operands.iter().map(|dims| known(dims)).collect();
        let axes: Vec<&[Option<usize>]> = axes.iter().map(Vec::as_slice).collect();
        assert_eq!(shape(&equation, &axes).unwrap(), known(case.dims), "{}", case.equation);
        assert_differentiable(case.equation, case.operands, |operands| {
            einsum(&equation, &operands.iter().collect::<Vec<_>>())
        });
    }
}

#[test]
fn an_unknown_axis_stays_unknown_unless_another_operand_knows_it() {
    type Axes = &'static [Option<usize>];
    let cases: &[(&str, &[Axes], Axes)] = &[
        ("bij,jk->bik", &[&[None, Some(2), Some(3)], &[Some(3), Some(4)]], &[None, Some(2), Some(4)]),
        ("bi,bj->bij", &[&[None, Some(2)], &[Some(5), None]], &[Some(5), Some(2), None]),
        ("...i,...i->...", &[&[None, Some(2)], &[Some(5), Some(2)]], &[Some(5)]),
        ("...i,...i->...", &[&[None, Some(2)], &[Some(1), Some(2)]], &[None]),
        ("...i,...i->...", &[&[Some(1), Some(2)], &[None, Some(2)]], &[None]),
    ];
    for (text, axes, expected) in cases {
        assert_eq!(shape(&Equation::parse(text).unwrap(), axes).unwrap(), *expected, "{text}");
    }
}

#[test]
fn what_keras_refuses_is_refused() {
    for text in ["ij->i->j", "i.j->i", "i-j", "i...j...->i", "i1->i", "ij->i,j"] {
        assert!(Equation::parse(text).is_err(), "{text}");
    }
    let cases: &[(&str, &[&[usize]])] = &[
        ("...ij->ij", &[&[2, 3, 4]]),
        ("ba", &[&[2, 3]]),
        ("zy,yx", &[&[2, 3], &[3, 4]]),
        ("ij,jk", &[&[2, 1], &[3, 4]]),
        ("ij->ii", &[&[2, 2]]),
        ("ij->k", &[&[2, 2]]),
        ("ij->i", &[&[2, 2, 2]]),
        ("ij,jk->ik", &[&[2, 2]]),
        ("ii->i", &[&[2, 3]]),
        ("...i,...i->...", &[&[2, 3], &[4, 3]]),
    ];
    for (text, operands) in cases {
        let operands: Vec<_> = operands.iter().map(|dims| numbers(dims, 0)).collect();
        assert!(einsum(&Equation::parse(text).unwrap(), &operands.iter().collect::<Vec<_>>()).is_err(), "{text}");
    }
}

#[test]
fn matmul_is_that_of_keras() {
    for (a, b, dims, keras) in MATMUL {
        let what = format!("{a:?} @ {b:?}");
        assert_close(&what, &matmul(&numbers(a, 0), &numbers(b, 1)).unwrap(), dims, keras, LIMIT);
        assert_eq!(matmul_shape(&known(a), &known(b)).unwrap(), known(dims), "{what}");
        assert_differentiable(&what, &[a, b], |operands| matmul(&operands[0], &operands[1]));
    }
    for (a, b) in [(vec![2, 3], vec![2, 3]), (vec![], vec![2]), (vec![2, 1, 2], vec![3, 2, 1])] {
        assert!(matmul(&numbers(&a, 0), &numbers(&b, 0)).is_err(), "{a:?} @ {b:?}");
    }
    let unknown = matmul_shape(&[None, Some(2), None], &[Some(3), None]).unwrap();
    assert_eq!(unknown, [None, Some(2), None]);
}

#[test]
fn tensordot_is_that_of_keras() {
    for (a, b, of_a, of_b, dims, keras) in TENSORDOT {
        let what = format!("{a:?} · {b:?} over {of_a:?} and {of_b:?}");
        let ys = tensordot(&numbers(a, 0), &numbers(b, 1), of_a, of_b).unwrap();
        assert_close(&what, &ys, dims, keras, LIMIT);
        assert_eq!(tensordot_shape(&known(a), &known(b), of_a, of_b).unwrap(), known(dims), "{what}");
        assert_differentiable(&what, &[a, b], |operands| tensordot(&operands[0], &operands[1], of_a, of_b));
    }
    for (of_a, of_b) in [(vec![0], vec![0]), (vec![2], vec![0]), (vec![1, 1], vec![0, 0]), (vec![1], vec![])] {
        assert!(tensordot(&numbers(&[2, 3], 0), &numbers(&[3, 2], 0), &of_a, &of_b).is_err());
    }
}
