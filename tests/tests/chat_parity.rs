//! Conversations become the text and the tokens that transformers makes of them: `goldens/make_chat.py`.

use beear_models::text::chat::Message;
use beear_models::{PromptFormat, TextTokenizer};
use beear_tests::golden;
use serde::Deserialize;

/// Chat templates of the forms of Llama 2, Llama 3 and Mistral, and one that is written as Python is.
const TEMPLATES: [&str; 4] = ["llama-2", "llama-3", "mistral", "pythonic"];

#[derive(Deserialize)]
struct Row {
    messages: Vec<Message>,
    text: String,
    tokens: Vec<u32>,
}

#[test]
fn every_conversation_becomes_the_same_tokens() {
    for name in TEMPLATES {
        let folder = golden::path(&format!("chat/{name}"));
        let tokenizer = TextTokenizer::load(&folder).unwrap();
        let format = PromptFormat::from_checkpoint(&folder).unwrap();
        let rows: Vec<Row> = golden::lines(&format!("chat/{name}/expected.jsonl"));
        assert_eq!(rows.len(), 20);
        for (k, row) in rows.iter().enumerate() {
            let encoded = format.encode_chat(&tokenizer, &row.messages).unwrap();
            assert_eq!(encoded.text, row.text, "{name}, conversation {k}");
            assert_eq!(encoded.tokens, row.tokens, "{name}, conversation {k}");
        }
    }
}

#[test]
fn a_question_is_the_conversation_of_one_turn() {
    for name in TEMPLATES {
        let folder = golden::path(&format!("chat/{name}"));
        let tokenizer = TextTokenizer::load(&folder).unwrap();
        let format = PromptFormat::from_checkpoint(&folder).unwrap();
        let rows: Vec<Row> = golden::lines(&format!("chat/{name}/expected.jsonl"));
        let mut n_asked = 0;
        for row in &rows {
            let [before @ .., last] = row.messages.as_slice() else { panic!("no turns") };
            let system = before.first().filter(|turn| turn.role == "system");
            if before.len() != usize::from(system.is_some()) {
                continue;
            }
            n_asked += 1;
            let system = system.map(|turn| turn.content.as_str());
            let encoded = format.encode(&tokenizer, &last.content, system).unwrap();
            assert_eq!(encoded.tokens, row.tokens, "{name}: {:?}", last.content);
        }
        assert!(n_asked >= 6, "{name}: {n_asked}");
    }
}
