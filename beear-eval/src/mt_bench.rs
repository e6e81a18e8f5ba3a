//! MT-Bench: questions of two turns, answers, and a judge's ratings of them, in the file formats of
//! FastChat.
//!
//! Zheng and others, [Judging LLM-as-a-Judge with MT-Bench and Chatbot
//! Arena](https://arxiv.org/abs/2306.05685), NeurIPS 2023. File formats, file names, the parsing of
//! ratings and the averages are those of FastChat 0.2.36, so that its scripts can read the files
//! written here and vice versa. The built-in questions and judge prompts are BEEAR's own: a result
//! is comparable with the published benchmark only if questions and prompts are read from its
//! files.

mod answers;
mod breakdown;
mod calls;
mod checks;
mod error;
mod generate;
mod judge_prompts;
mod judgment;
mod judgments;
mod lines;
mod measures;
mod pending_judgments;
mod question_id;
mod questions;
mod rating;
mod show_result;
mod template;
mod win_rate;

pub use answers::{
    Answer, Answers, Choice, append_answer, parse_answers, read_answers, resume_answers,
};
pub use breakdown::{Breakdown, ByTurn, OfJudge};
pub use calls::{Bench, Call, Game, Judged, all_pairs, pairs_with_baseline};
pub use checks::rule_measure;
pub use error::MtBenchError;
pub use generate::{AnswerConfig, generate_answers, unanswered};
pub use judge_prompts::{JudgePrompt, JudgePrompts, OutputFormat, PromptType};
pub use judgment::{Judgment, JudgmentKey, append_judgment, parse_judgments, read_judgments};
pub use judgments::{JudgedBy, PairJudgment, SingleJudgment, Winner};
pub use measures::{mt_bench_measures, pair_measures};
pub use pending_judgments::{PendingJudgments, write_judgments};
pub use question_id::QuestionId;
pub use questions::{
    Check, Question, builtin, needs_reference, parse_questions, read_questions, references,
    temperature, tiny,
};
pub use rating::{Preference, preference, preference_by_ratings, rating};
pub use show_result::{Average, ModelAverages, SingleResult};
pub use template::Template;
pub use win_rate::{ModelTallies, PairResult, PairSelection, Tally};
