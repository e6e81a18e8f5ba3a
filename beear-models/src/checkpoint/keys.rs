//! Where a weight of the module is in the checkpoint. Fields are named alike; linear weights are
//! stored transposed.

/// The stored name of the weight at `path`, and whether it is stored transposed.
pub(super) fn stored(path: &[String]) -> (String, bool) {
    let transposed = path.iter().any(|part| part.ends_with("_proj") || part == "lm_head");
    (path.join("."), transposed)
}

/// Tensors that old exporters write and no model needs: they follow from the config.
pub(super) fn is_derived(name: &str, tied_embeddings: bool) -> bool {
    name.ends_with("rotary_emb.inv_freq") || (tied_embeddings && name == "lm_head.weight")
}
