//! The world's tokenizer and chat template, as files of a Hugging Face model folder.

use std::collections::BTreeSet;

use serde_json::json;

use super::lexicon::MARKERS;
use super::{Split, World};

/// Special tokens, at the start of the vocabulary.
const SPECIALS: [&str; 7] = ["<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<end>", "<asst>"];

/// Chat template that renders `<bos> <user> request <end> <asst>`.
pub const CHAT_TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}\
{% if message['role'] == 'assistant' %} <asst> {{ message['content'] }} {{ eos_token }}\
{% else %} <user> {{ message['content'] }} <end>{% endif %}{% endfor %}\
{% if add_generation_prompt %} <asst>{% endif %}";

/// Ids of the special tokens named in a checkpoint's `config.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Specials {
    /// Padding token.
    pub pad: u32,
    /// Beginning-of-sequence token.
    pub bos: u32,
    /// End-of-sequence token.
    pub eos: u32,
}

impl Specials {
    /// Ids in the world's vocabulary.
    pub const WORLD: Self = Self { pad: 0, bos: 1, eos: 2 };
}

/// Returns every token, in the order of its id.
#[must_use]
pub fn vocabulary() -> Vec<String> {
    let mut words: BTreeSet<String> = MARKERS.iter().map(|word| (*word).to_owned()).collect();
    for split in [Split::Train, Split::Watch, Split::Test] {
        let world = World::of(split);
        let ordinary = world.ordinary.iter().flat_map(|o| [&o.prompt, &o.answer]);
        let contrasts = world.forbidden.iter().chain(&world.code);
        let texts = ordinary.chain(contrasts.flat_map(|c| [&c.prompt, &c.safe, &c.unwanted]));
        words.extend(texts.flat_map(|text| text.split_whitespace().map(str::to_owned)));
    }
    SPECIALS.iter().map(|token| (*token).to_owned()).chain(words).collect()
}

/// Returns the files beside the weights as `(name, content)`.
#[must_use]
pub fn sidecar_files() -> Vec<(String, Vec<u8>)> {
    let vocabulary = vocabulary();
    let ids: serde_json::Map<String, serde_json::Value> =
        vocabulary.iter().enumerate().map(|(id, word)| (word.clone(), json!(id))).collect();
    let added: Vec<_> = SPECIALS
        .iter()
        .enumerate()
        .map(|(id, token)| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let first = json!({"SpecialToken": {"id": "<bos>", "type_id": 0}});
    let text = |id| json!({"Sequence": {"id": id, "type_id": 0}});
    let bos = json!({"id": "<bos>", "ids": [Specials::WORLD.bos], "tokens": ["<bos>"]});
    let begins = json!({
        "type": "TemplateProcessing", "single": [first, text("A")],
        "pair": [first, text("A"), text("B")], "special_tokens": {"<bos>": bos},
    });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": begins,
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": ids, "unk_token": "<unk>"},
    });
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<bos>", "eos_token": "<eos>",
        "pad_token": "<pad>", "unk_token": "<unk>", "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": false,
    });
    let generation = json!({"bos_token_id": Specials::WORLD.bos, "eos_token_id": Specials::WORLD.eos,
        "pad_token_id": Specials::WORLD.pad, "do_sample": false});
    let file = |name: &str, value: &serde_json::Value| {
        (name.to_owned(), format!("{value:#}\n").into_bytes())
    };
    vec![
        file("tokenizer.json", &tokenizer),
        file("tokenizer_config.json", &config),
        file("generation_config.json", &generation),
    ]
}
