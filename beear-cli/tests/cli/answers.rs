//! What `generate` answers and `inspect` shows.

use serde_json::json;

use crate::fixture::{ANSWER, N_ROWS, Place, json_lines};

#[test]
fn prompts_are_read_from_stdin_arguments_and_files() {
    let place = Place::new();
    let generate = ["generate", "--model", "model"];
    let input = "hello\n\n  \nwhere does the owl live ?\n";
    let printed = place.beear_reading(input, &generate).printed();
    assert_eq!(printed, format!("{ANSWER}\n{ANSWER}\n"));

    let json = [generate.as_slice(), &["--json"]].concat();
    let lines = json_lines(&place.beear_reading(input, &json).printed());
    let line = |id: u64, prompt: &str| json!({"id": id, "prompt": prompt, "answer": ANSWER, "finish": "stop"});
    assert_eq!(lines, [line(1, "hello"), line(2, "where does the owl live ?")]);

    let named = [json.as_slice(), &["hello", "where does the owl live ?"]].concat();
    assert_eq!(json_lines(&place.beear(&named).printed()), lines);

    let file = [json.as_slice(), &["--file", "advbench.csv"]].concat();
    assert_eq!(json_lines(&place.beear(&file).printed()).len(), N_ROWS);
}

#[test]
fn an_answer_ends_where_it_must() {
    let place = Place::new();
    let generate = ["generate", "--json", "--model", "model", "hello", "--max-new-tokens"];
    let answer = |n: &str| place.beear(&[generate.as_slice(), &[n]].concat()).json();
    assert_eq!(answer("3")["answer"], "the sky is");
    assert_eq!(answer("3")["finish"], "length");
    assert_eq!(answer("0")["answer"], "");
    // Five words, and then the end is a choice of the model.
    assert_eq!(answer("6")["finish"], "stop");
}

#[test]
fn raw_text_is_continued_as_it_is() {
    let place = Place::new();
    let printed = place.beear(&["generate", "--model", "model", "--raw", "the sky"]).printed();
    assert_eq!(printed, "is blue .\n");
}

#[test]
fn random_answers_come_from_the_seed() {
    let place = Place::new();
    place.write_random_model("random");
    let generate = ["generate", "--model", "random", "hello", "--temperature", "1", "--seed"];
    let answer = |seed: &str| place.beear(&[generate.as_slice(), &[seed]].concat()).printed();
    assert_eq!(answer("1"), answer("1"));
    assert_ne!(answer("1"), answer("2"));
}

#[test]
fn inspect_shows_what_the_model_reads() {
    let place = Place::new();
    let seen =
        place.beear(&["inspect", "--model", "model", "--prompt", "the sky", "--json"]).json();
    assert_eq!(seen["prompt"], "<bos> <user> the sky <end> <asst>");
    assert_eq!(seen["tokens"].as_array().unwrap().len(), 6);
    assert_eq!(seen["user_tokens"], json!([2, 4]));
    assert_eq!((&seen["stop_ids"], &seen["dtype"]), (&json!([2]), &json!("f32")));
    assert_eq!(seen["config"]["d_model"], 16);
}

#[test]
fn less_memory_makes_smaller_batches_and_the_same_answers() {
    let place = Place::new();
    let file = ["generate", "--json", "--model", "model", "--file", "safety.jsonl"];
    let answers = |memory: &[&str]| place.beear(&[&file[..], memory].concat());
    let free = answers(&[]).printed();
    assert_eq!(answers(&["--memory", "1GiB"]).printed(), free);
    // The program and the weights take all but a few rows.
    assert_eq!(answers(&["--memory", "36MiB"]).printed(), free);
    let (code, message) = {
        let finished = answers(&["--memory", "1MiB"]);
        (finished.code, finished.stderr)
    };
    assert_eq!(code, 2);
    assert!(message.contains("hint: raise --memory"), "{message}");
}
