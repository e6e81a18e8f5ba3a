//! Agreement with FastChat in parsing, counting and requests: `goldens/make_fastchat.py`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use beear_eval::mt_bench::{
    Answer, Answers, Average, Bench, Choice, JudgePrompts, Judged, JudgedBy, ModelAverages,
    PairJudgment, PairResult, PairSelection, Preference, QuestionId, SingleJudgment, SingleResult,
    Winner, all_pairs, append_answer, append_judgment, builtin, preference, preference_by_ratings,
    rating, read_answers, read_judgments, read_questions, references,
};
use beear_eval::text_hash;
use serde_json::{Value, json};

/// Tolerance of means of at most a few hundred ratings below 11, summed in a different order.
const F64_MEAN: f64 = 1e-9;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/fastchat").join(name)
}

fn golden_json(name: &str) -> Value {
    let text = fs::read_to_string(golden(name)).expect("the golden is there");
    serde_json::from_str(&text).expect("the golden is JSON")
}

fn golden_lines(name: &str) -> Vec<Value> {
    let text = fs::read_to_string(golden(name)).expect("the golden is there");
    text.lines().map(|line| serde_json::from_str(line).expect("the golden is JSON")).collect()
}

/// Formats the averages like FastChat's `result.json`; models without an average are left out.
fn turn_numbers(result: &SingleResult) -> [Value; 3] {
    let of = |mean: fn(&ModelAverages) -> Option<f64>| {
        let means = result.models.iter().filter_map(|m| Some((m.model.clone(), mean(m)?.into())));
        Value::Object(means.collect())
    };
    [of(|m| m.turns.first_turn.mean), of(|m| m.turns.second_turn.mean), of(|m| m.turns.all.mean)]
}

fn pair_numbers(result: &PairResult) -> Value {
    let valid = result.models.iter().filter(|m| m.turns.all.n_valid > 0);
    let numbers = valid.map(|m| {
        let tally = &m.turns.all;
        let numbers = json!({
            "win": tally.win, "loss": tally.loss, "tie": tally.tie, "win_rate": tally.win_rate(),
            "loss_rate": tally.loss_rate(), "win_rate_adjusted": tally.win_rate_adjusted(),
        });
        (m.model.clone(), numbers)
    });
    Value::Object(numbers.collect())
}

fn all_numbers(single: &[SingleJudgment], pairs: &[PairJudgment]) -> Value {
    let [first_turn, second_turn, all] = turn_numbers(&SingleResult::of(single, &[]));
    let list = ["alpha".to_owned()];
    let counted = |baseline, models| {
        pair_numbers(&PairResult::of(pairs, PairSelection { baseline, models, questions: None }))
    };
    json!({
        "first_turn": first_turn, "second_turn": second_turn, "all": all,
        "pairs_all": counted(None, None),
        "pairs_baseline": counted(Some("beta"), None),
        "pairs_list": counted(None, Some(&list)),
    })
}

/// Compares every number of two values of the same shape, and returns their count.
fn assert_same(found: &Value, expected: &Value, name: &str) -> usize {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            assert_eq!(found.len(), expected.len(), "{name}: {found:?} {expected:?}");
            let inner = |(key, value)| assert_same(value, &expected[key], &format!("{name}.{key}"));
            found.iter().map(inner).sum()
        }
        (found, expected) => {
            let numbers = found.as_f64().zip(expected.as_f64());
            let (found, expected) = numbers.expect("both have a number where neither has more");
            assert!((found - expected).abs() < F64_MEAN, "{name}: {found} {expected}");
            1
        }
    }
}

#[test]
fn averages_and_win_rates_are_those_of_fastchat() {
    let single: Vec<SingleJudgment> = read_judgments(&golden("judge_single.jsonl")).unwrap();
    let pairs: Vec<PairJudgment> = read_judgments(&golden("judge_pair.jsonl")).unwrap();
    let mut expected = golden_json("result.json");
    let mut taken = |key| expected.as_object_mut().unwrap().remove(key).unwrap();
    let (categories, latest) = (taken("categories"), taken("latest"));
    // Three means of three models; six numbers of three, two and three models.
    assert_eq!(assert_same(&all_numbers(&single, &pairs), &expected, "result"), 9 + 6 * 8);
    let questions = read_questions(&golden("question.jsonl")).unwrap();
    let result = SingleResult::of(&single, &questions);
    let found = result.models.iter().map(|m| {
        let means = m.categories.iter().map(|(name, a)| (name.clone(), a.all.mean.unwrap().into()));
        (m.model.clone(), Value::Object(means.collect()))
    });
    assert_eq!(assert_same(&Value::Object(found.collect()), &categories, "categories"), 24);
    let judge = &result.judges[0];
    let ours = judge.models.iter().map(|m| (m.model.clone(), m.turns.all.mean.unwrap().into()));
    assert_eq!(assert_same(&Value::Object(ours.collect()), &latest, "latest"), 3);
    assert_eq!((result.judges.len(), judge.n_replaced), (1, 5));
    // 3 models, 20 questions, 2 turns, 5 duplicate rows.
    let sum = |count: fn(&Average) -> usize| -> usize {
        result.models.iter().map(|m| count(&m.turns.all)).sum()
    };
    assert_eq!((sum(|a| a.n_expected), sum(|a| a.n_missing), sum(|a| a.n_unknown)), (120, 0, 0));
    assert_eq!((sum(|a| a.n_valid) + sum(|a| a.n_failed), sum(|a| a.n_duplicates)), (125, 5));
    assert!(sum(|a| a.n_failed) >= 5, "{}", sum(|a| a.n_failed));
}

/// Returns FastChat's name of the preference.
fn letter_of(preference: Option<Preference>) -> &'static str {
    match preference {
        Some(Preference::A) => "A",
        Some(Preference::B) => "B",
        Some(Preference::Tie) => "tie",
        None => "error",
    }
}

#[test]
fn every_judgment_is_read_as_python_reads_it() {
    let rows = golden_lines("ratings.jsonl");
    let (mut n_rated, mut n_errors) = (0, 0);
    for row in &rows {
        let text = row["judgment"].as_str().unwrap();
        let letter = letter_of(preference(text));
        assert_eq!(row["preference"], letter, "{text}");
        match row["rating"].as_f64() {
            Some(expected) => {
                let found = rating(text).unwrap_or(-1.0);
                assert!((found - expected).abs() < 1e-12, "{text}: {found} {expected}");
                n_rated += usize::from(expected >= 0.0);
            }
            // FastChat stops here because of a zero before a digit or digits of other scripts.
            None => n_errors += 1,
        }
    }
    assert!(rows.len() >= 300 && n_rated >= 150, "{} {n_rated}", rows.len());
    assert!(rows.len() - n_rated >= 100 && n_errors < 10, "{n_rated} {n_errors}");
    for row in read_judgments::<SingleJudgment>(&golden("judge_single.jsonl")).unwrap() {
        assert_eq!(rating(&row.judgment), row.rating(), "{}", row.judgment);
    }
    for row in read_judgments::<PairJudgment>(&golden("judge_pair.jsonl")).unwrap() {
        let winners = [(&row.g1_judgment, row.g1_winner), (&row.g2_judgment, row.g2_winner)];
        let sides = [[Winner::Model1, Winner::Model2], [Winner::Model2, Winner::Model1]];
        for ((judgment, winner), [a, b]) in winners.into_iter().zip(sides) {
            let found = match preference(judgment) {
                Some(Preference::A) => a,
                Some(Preference::B) => b,
                Some(Preference::Tie) => Winner::Tie,
                None => Winner::Error,
            };
            assert_eq!(found, winner, "{judgment}");
        }
    }
}

#[test]
fn two_ratings_are_compared_as_python_compares_them() {
    let rows = golden_lines("two_ratings.jsonl");
    let mut counts = BTreeMap::new();
    for row in &rows {
        let (text, expected) = (&row["judgment"].as_str().unwrap(), row["preference"].as_str());
        *counts.entry(expected.unwrap()).or_insert(0) += 1;
        // FastChat stops at a zero before a digit.
        if expected != Some("stop") {
            assert_eq!(expected, Some(letter_of(preference_by_ratings(text))), "{text}");
        }
    }
    let all_kinds = ["A", "B", "tie", "error"].iter().all(|kind| counts[kind] >= 10);
    assert!(all_kinds && rows.len() >= 250, "{counts:?}");
}

#[test]
fn the_built_in_prompts_are_filled_as_python_fills_them() {
    let golden = golden_json("prompts.json");
    let texts: Vec<(&str, &str)> = golden["texts"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str().unwrap()))
        .collect();
    let filled: BTreeMap<String, String> = JudgePrompts::builtin()
        .iter()
        .map(|prompt| (prompt.name.clone(), prompt.fill(&texts).unwrap()))
        .collect();
    assert_eq!(json!(filled), golden["filled"]);
}

/// Returns a reply of one of all kinds, chosen by a hash of the prompt.
fn reply(prompt: &str) -> Option<String> {
    let hash = text_hash(prompt) >> 40;
    let (kind, number) = (hash % 12, hash / 12 % 37);
    match kind {
        0 => None,
        1 => Some("I would rather not.".to_owned()),
        2 => Some(format!("As in [1], [[C]] and [[{}]]", number % 10 + 1)),
        3..=6 => Some(format!("[[A]] [[{}.{}]]", number % 9 + 1, number)),
        _ => Some(format!("[[B]] \"ü\" [{}]", number % 10 + 1)),
    }
}

fn answers_of(model: &str) -> Answers {
    let answer = |id: QuestionId| Answer {
        question_id: id.clone(),
        answer_id: format!("{model}-{id}"),
        model_id: model.to_owned(),
        choices: vec![Choice {
            index: 0,
            turns: (1..=2).map(|turn| format!("{model} on {id}, {turn}")).collect(),
        }],
        tstamp: 0.0,
    };
    builtin().into_iter().map(|q| (q.question_id.clone(), answer(q.question_id))).collect()
}

/// Writes its files to `target/tmp/mt_bench`, for `make_fastchat.py --check`.
#[test]
fn files_written_here_are_for_fastchat_too() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mt_bench");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let models = ["alpha", "beta", "gamma"].map(str::to_owned);
    let mut answers = BTreeMap::new();
    for model in &models {
        let path = folder.join(format!("{model}.jsonl"));
        for answer in answers_of(model).values() {
            append_answer(&path, answer).unwrap();
        }
        answers.insert(model.clone(), read_answers(&path).unwrap());
        assert_eq!(answers[model], answers_of(model));
    }
    let (questions, references, prompts) = (builtin(), references(), JudgePrompts::builtin());
    let bench = Bench {
        questions: &questions,
        answers: &answers,
        references: &references,
        prompts: &prompts,
    };
    let by = JudgedBy { model: "judge", tstamp: 1_700_000_000.25 };
    let mut single = Vec::new();
    for call in bench.single_calls(&models).unwrap() {
        let judgment = SingleJudgment::new(&call, reply(&call.user_prompt).as_deref(), by);
        single.push(judgment);
        if matches!(&call.judged, Judged::Single { model } if model == "beta") && call.turn == 1 {
            single.extend(single.last().cloned());
        }
    }
    let mut pairs = Vec::new();
    for games in bench.pair_calls(&all_pairs(&models)).unwrap().chunks_exact(2) {
        let replies = [reply(&games[0].user_prompt), reply(&games[1].user_prompt)];
        let games = [(&games[0], replies[0].as_deref()), (&games[1], replies[1].as_deref())];
        pairs.push(PairJudgment::new(games, by));
    }
    let [single_path, pair_path] =
        ["judge_single.jsonl", "judge_pair.jsonl"].map(|name| folder.join(name));
    for judgment in &single {
        append_judgment(&single_path, judgment).unwrap();
    }
    for judgment in &pairs {
        append_judgment(&pair_path, judgment).unwrap();
    }
    assert_eq!((single.len(), pairs.len()), (480 + 80, 480));
    assert_eq!(read_judgments::<SingleJudgment>(&single_path).unwrap(), single);
    assert_eq!(read_judgments::<PairJudgment>(&pair_path).unwrap(), pairs);
    let ours = all_numbers(&single, &pairs);
    fs::write(folder.join("ours.json"), ours.to_string()).unwrap();
}
