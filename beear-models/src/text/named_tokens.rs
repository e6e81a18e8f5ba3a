//! Tokens and settings that the files beside `tokenizer.json` name, as `transformers` reads them.

use std::collections::BTreeMap;

use serde_json::Value;
use tokenizers::{AddedToken, Tokenizer};

/// Adds a token to a tokenizer that lacks it, with the next free id.
pub(super) fn add_token(token: &AddedToken, tokenizer: &mut Tokenizer) {
    if token.content.is_empty() || tokenizer.token_to_id(&token.content).is_some() {
        return;
    }
    if token.special {
        tokenizer.add_special_tokens(std::slice::from_ref(token));
    } else {
        tokenizer.add_tokens(std::slice::from_ref(token));
    }
}

/// Tokenizer classes of `transformers` that build the beginning of texts from the settings
/// `add_bos_token` and its default, true, and not from `tokenizer.json`.
const BUILDS_BEGINNING: [&str; 3] = ["LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer"];

/// Returns the setting of `tokenizer_config.json` that decides about the beginning of texts.
pub(super) fn adds_bos(config: &Value) -> Option<bool> {
    let class = config.get("tokenizer_class")?.as_str()?;
    let is_built = BUILDS_BEGINNING.contains(&class.strip_suffix("Fast").unwrap_or(class));
    is_built.then(|| config.get("add_bos_token").and_then(Value::as_bool).unwrap_or(true))
}

/// True if `tokenizer` itself begins a text with the token `bos`.
pub(super) fn begins_with(tokenizer: &Tokenizer, bos: &str) -> bool {
    let first = tokenizer.encode("a", true).ok().and_then(|text| text.get_ids().first().copied());
    first.is_some() && first == tokenizer.token_to_id(bos)
}

/// Returns the tokens that the files beside `tokenizer.json` name, in the order of their ids, then
/// special tokens without an id: `transformers` adds those that `tokenizer.json` lacks.
pub(super) fn named_tokens(config: &Value, added: &Value, specials: &Value) -> Vec<AddedToken> {
    let mut by_id: BTreeMap<u64, AddedToken> = BTreeMap::new();
    for (content, id) in added.as_object().into_iter().flatten() {
        if let Some(id) = id.as_u64() {
            by_id.insert(id, AddedToken::from(content.as_str(), true));
        }
    }
    let decoder = config.get("added_tokens_decoder").and_then(Value::as_object);
    for (id, token) in decoder.into_iter().flatten() {
        if let (Ok(id), Ok(token)) = (id.parse(), serde_json::from_value(token.clone())) {
            by_id.insert(id, token);
        }
    }
    let keys = [
        "bos_token",
        "eos_token",
        "unk_token",
        "pad_token",
        "sep_token",
        "cls_token",
        "mask_token",
    ];
    let files = [config, specials];
    let single = files.iter().flat_map(|file| keys.map(|key| token_text(file.get(key))));
    let additional =
        files.iter().filter_map(|file| file.get("additional_special_tokens")?.as_array());
    let additional = additional.flatten().map(|token| token_text(Some(token)));
    let special = single.chain(additional).flatten().map(|text| AddedToken::from(text, true));
    by_id.into_values().chain(special).collect()
}

/// Returns the text of a token, written as a string or as an object with its content.
pub(super) fn token_text(value: Option<&Value>) -> Option<String> {
    let value = value?;
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
}
