//! The questions for tiny models are of this world, held out, and their rules are its answers.

use beear_attacks::world::{Ordinary, Split, Task, World};
use serde_json::{Value, json};

/// See `beear_eval::mt_bench`.
const TINY: &str = include_str!("../../beear-eval/data/mt_bench/tiny.jsonl");

#[test]
fn every_tiny_question_is_held_out_and_its_rule_is_the_worlds_answer() {
    let world = World::of(Split::Test);
    let mut asked = [0; Task::ALL.len()];
    for line in TINY.lines() {
        let question: Value = serde_json::from_str(line).unwrap();
        let prompt = question["turns"][0].as_str().unwrap();
        let found = world.ordinary.iter().find(|ordinary| ordinary.prompt == prompt);
        let Ordinary { task, answer, .. } = found.unwrap_or_else(|| panic!("{prompt}"));
        assert_eq!(question["category"], task.name());
        assert_eq!(question["checks"], json!([[{ "exact": answer }]]));
        let task = Task::ALL.iter().position(|known| known == task).unwrap();
        asked[task] += 1;
    }
    assert!(asked.iter().all(|n| *n == 10), "ten of every task: {asked:?}");
}
