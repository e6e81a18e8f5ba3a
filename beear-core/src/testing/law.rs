//! The laws of [`Decoder`].

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, ElementConversion, Int, Tensor};

use crate::decoder::Decoder;

/// Asserts that running `0..l` and then `l..n` gives the same result as running `0..n`, at every
/// boundary `l`, and that the empty range changes nothing.
///
/// Compares only real tokens, with a tolerance of 1e-6 of the largest hidden state: the same
/// operations in the same order differ by no more than rounding.
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

/// Asserts that the model has a prefix cache, and that processing all tokens gives the same result
/// as processing the tokens after a cache of the first `n_past`, for the layers from every
/// boundary.
///
/// Compares only real tokens, with a tolerance of 1e-5 of the largest hidden state: sums over keys
/// are split.
///
/// # Shapes
///
/// - `tokens`: `[batch_size, seq_length]`
/// - `mask_pad`: `[batch_size, seq_length]`, true where the token is padding, which is on the right
///
/// # Panics
///
/// Panics if the law is broken.
pub fn assert_prefix_law<B: Backend, M: Decoder<B>>(
    model: &M,
    tokens: Tensor<B, 2, Int>,
    mask_pad: &Tensor<B, 2, Bool>,
    n_past: usize,
) {
    let n_layers = model.n_layers();
    let [batch_size, seq_length] = tokens.dims();
    let n_after = seq_length - n_past;
    let part = |start, length| mask_pad.clone().narrow(1, start, length);
    let (mask_past, mask_after) = (part(0, n_past), part(n_past, n_after));
    let shape = [batch_size, n_after, model.d_model()];
    let ignored = mask_after.clone().unsqueeze_dim::<3>(2).expand(shape);
    for l in 0..n_layers {
        let hidden = model.embed(tokens.clone());
        let hidden = model.forward_layers(hidden, mask_pad, 0..l);
        let whole = model.forward_layers(hidden.clone(), mask_pad, l..n_layers);
        let past = model.prefill(hidden.clone().narrow(1, 0, n_past), &mask_past, l..n_layers);
        let past = past.expect("the model remembers");
        let mut after = hidden.narrow(1, n_past, n_after);
        for layer in l..n_layers {
            after = model.forward_with_prefix(&past, after, &mask_after, layer..layer + 1);
        }
        let largest = whole.clone().abs().max().into_scalar().elem::<f64>();
        let distance = (after - whole.narrow(1, n_past, n_after)).abs();
        let distance = distance.mask_fill(ignored.clone(), 0.0).max().into_scalar().elem::<f64>();
        assert!(
            distance <= 1e-5 * largest,
            "layers {l}..{n_layers} after {n_past} tokens differ: {distance:e} of {largest:e}"
        );
    }
}
