//! The law of [`Decoder`].

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, ElementConversion, Int, Tensor};

use crate::decoder::Decoder;

/// Asserts that running `0..l` and then `l..n` gives what `0..n` gives, at every boundary `l`, and
/// that the empty range changes nothing.
///
/// Compares real tokens only and allows 1e-6 of the largest hidden state: the same operations in
/// the same order leave no more than rounding.
///
/// # Shapes
///
/// - `tokens`: `[batch_size, seq_length]`
/// - `mask_pad`: `[batch_size, seq_length]`, true where the token is padding
///
/// # Panics
///
/// Panics if the law is broken.
pub fn assert_split_law<B: Backend, M: Decoder<B>>(
    model: &M,
    tokens: Tensor<B, 2, Int>,
    mask_pad: &Tensor<B, 2, Bool>,
) {
    let n_layers = model.n_layers();
    let embedded = model.embed(tokens);
    let [batch_size, seq_length, d_model] = embedded.dims();
    assert_eq!(d_model, model.d_model(), "embed: [batch_size, seq_length, d_model]");
    let whole = model.forward_layers(embedded.clone(), mask_pad, 0..n_layers);
    assert_eq!(whole.dims(), [batch_size, seq_length, d_model], "forward_layers keeps the shape");

    let largest = whole.clone().abs().max().into_scalar().elem::<f64>();
    let ignored = mask_pad.clone().unsqueeze_dim::<3>(2).expand([batch_size, seq_length, d_model]);
    let difference = |left: Tensor<B, 3>, right: Tensor<B, 3>| {
        let distance = (left - right).abs().mask_fill(ignored.clone(), 0.0);
        distance.max().into_scalar().elem::<f64>()
    };
    for l in 0..=n_layers {
        let below = model.forward_layers(embedded.clone(), mask_pad, 0..l);
        let same = model.forward_layers(below.clone(), mask_pad, l..l);
        assert!(difference(same, below.clone()) == 0.0, "layers {l}..{l} change the hidden states");
        let pieces = model.forward_layers(below, mask_pad, l..n_layers);
        let distance = difference(pieces, whole.clone());
        assert!(
            distance <= 1e-6 * largest,
            "0..{l} then {l}..{n_layers} differs from 0..{n_layers}: {distance:e} of {largest:e}"
        );
    }
}
