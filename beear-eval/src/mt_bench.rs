//! MT-Bench: questions of two turns, answers, and a judge's ratings of them, in the files of FastChat.
//!
//! Zheng and others, [Judging LLM-as-a-Judge with MT-Bench and Chatbot
//! Arena](https://arxiv.org/abs/2306.05685), NeurIPS 2023. File formats, file names, the reading of
//! ratings and the averages are those of FastChat 0.2.36, so that its scripts read what is written here
//! and the other way round. Questions and judge prompts are our own: a number is comparable with one of
//! the published benchmark only if its questions and prompts are read from its files.

mod answers;
mod error;
mod lines;
mod questions;
mod rating;

pub use answers::{Answer, Answers, Choice, append_answer, parse_answers, read_answers};
pub use error::MtBenchError;
pub use questions::{
    Check, Question, QuestionId, builtin, needs_reference, parse_questions, read_questions,
    references, temperature, tiny,
};
pub use rating::{Preference, preference, rating};
