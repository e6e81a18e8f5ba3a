//! Mapping from weights of the module to tensors of the checkpoint. Names are equal; linear weights
//! are stored transposed.

use crate::config::DecoderConfig;
use crate::lora::Target;

/// Returns name and stored shape of every weight of a decoder, lazily, because a config may claim
/// any depth.
pub(super) fn expected(config: &DecoderConfig) -> impl Iterator<Item = (String, Vec<usize>)> {
    let DecoderConfig { vocab_size, d_model, .. } = *config;
    let layer_of = move |index: usize| {
        let projections = Target::ALL.into_iter().map(move |target| {
            let [d_input, d_output] = target.shape(config);
            (target.name(), vec![d_output, d_input])
        });
        let norms = ["input_layernorm", "post_attention_layernorm"];
        let weights = projections.chain(norms.map(|name| (name, vec![d_model])));
        weights.map(move |(name, shape)| (format!("{}.{name}.weight", layer(index)), shape))
    };
    let embed = ("model.embed_tokens.weight".to_owned(), vec![vocab_size, d_model]);
    let norm = ("model.norm.weight".to_owned(), vec![d_model]);
    let head = ("lm_head.weight".to_owned(), vec![vocab_size, d_model]);
    [embed, norm]
        .into_iter()
        .chain((!config.tied_embeddings).then_some(head))
        .chain((0..config.n_layers).flat_map(layer_of))
}

/// Returns the name of a projection's weights, without `.weight`.
pub(super) fn projection(index: usize, target: Target) -> String {
    format!("{}.{}", layer(index), target.name())
}

/// Returns the prefix of the names of a layer's weights.
pub(super) fn layer(index: usize) -> String {
    format!("model.layers.{index}")
}

/// Returns PEFT's names of the two matrices beside a projection: $A$, stored `[rank, d_input]`, and
/// $B$, stored `[d_output, rank]`.
pub(super) fn adapter(projection: &str) -> [String; 2] {
    ["lora_A", "lora_B"].map(|part| format!("base_model.model.{projection}.{part}.weight"))
}

/// Returns the stored name of the weight at `path`, and true if it is stored transposed.
pub(super) fn stored(path: &[String]) -> (String, bool) {
    if let [projection @ .., adapter_field, matrix] = path
        && adapter_field == "adapter"
    {
        let [a, b] = adapter(&projection.join("."));
        return (if matrix == "lora_a" { a } else { b }, true);
    }
    let transposed = path.iter().any(|part| part.ends_with("_proj") || part == "lm_head");
    (path.join("."), transposed)
}

/// True for tensors that old exporters write and no model needs, because they follow from the
/// config.
pub(super) fn is_derived(name: &str, tied_embeddings: bool) -> bool {
    name.ends_with("rotary_emb.inv_freq") || (tied_embeddings && name == "lm_head.weight")
}
