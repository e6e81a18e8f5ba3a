//! Interface to all text work of a model: templates and tokenizers come from its folder, which may
//! be untrusted.
//!
//! A template is code, and the normaliser, patterns and merges of a `tokenizer.json` decide how
//! much time and memory a text takes. [`InProcess`] works in the calling process and bounds
//! neither: use it for trusted folders. For untrusted folders implement [`TextEngine`] over a
//! process that can be killed and that runs [`InProcess::serve`], like the command `beear`.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::text::chat::{Message, TemplateSource};
use crate::text::large_stack;
use crate::text::prompt_encoder::PromptEncoder;
use crate::text::prompt_format::{EncodedPrompt, EncodedRow, PromptFormat, PromptFormatError};
use crate::text::text_stage::TextStage;
use crate::text::tokenizer::TextTokenizer;

/// Unit of text work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TextTask {
    /// Encoding of a conversation, up to the start of the next answer.
    Prompt(Vec<Message>),
    /// Encoding of a conversation with its answer.
    Row {
        /// Messages before the answer; the last one is the user's.
        messages: Vec<Message>,
        /// Answer of the assistant.
        answer: String,
    },
    /// Decoding of ids into text without special tokens.
    Decode(Vec<u32>),
    /// Listing of the tokens.
    Vocabulary,
}

/// Result of a [`TextTask`] of the same kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TextOutput {
    /// Encoded conversation.
    Prompt(EncodedPrompt),
    /// Encoded conversation with its answer.
    Row(EncodedRow),
    /// Decoded text.
    Text(String),
    /// Tokens of the tokenizer.
    Vocabulary(Vocabulary),
}

/// All tokens of a tokenizer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vocabulary {
    /// Token of each id; `None` for an id without a token.
    pub tokens: Vec<Option<String>>,
    /// Ids that represent text, see [`TextTokenizer::text_ids`].
    pub text_ids: Vec<u32>,
}

/// Error of a task.
#[derive(Debug, Error)]
pub enum TextEngineError {
    /// The template or the tokenizer refused the text.
    #[error(transparent)]
    Format(#[from] PromptFormatError),
    /// A task exceeded the time limit.
    #[error("{stage} takes more than {seconds} s for one text")]
    Deadline {
        /// Stage that exceeded the limit.
        stage: TextStage,
        /// Limit in seconds.
        seconds: f64,
    },
    /// The tasks exceeded the memory limit.
    #[error("{stage} takes more than {mebibytes} MiB of memory")]
    Memory {
        /// Stage that exceeded the limit.
        stage: TextStage,
        /// Limit in MiB.
        mebibytes: u64,
    },
    /// The worker process has ended unexpectedly.
    #[error("{stage} ends the process that reads it: {how}")]
    Died {
        /// Stage in which the process ended.
        stage: TextStage,
        /// Description of the end, such as a signal.
        how: String,
    },
    /// The worker process cannot be started.
    #[error("no process can be started for the tokenizer and the chat template: {reason}")]
    NotStarted {
        /// Problem of the start.
        reason: String,
    },
}

impl TextEngineError {
    /// Returns a one-line suggestion for fixing the error.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Format(error) => return error.hint(),
            Self::Deadline { .. } | Self::Memory { .. } => {
                "do not use this model unless you trust it: then raise the limit"
            }
            Self::Died { .. } => "do not use this model",
            Self::NotStarted { .. } => return None,
        })
    }
}

/// Error of the first failed task.
#[derive(Debug, Error)]
#[error("{error}")]
pub struct TaskFailed {
    /// Index of the task.
    pub task: usize,
    /// Error of the task.
    pub error: TextEngineError,
}

/// Engine for the text work of one model.
pub trait TextEngine: fmt::Debug + Send + Sync {
    /// Returns the ids that end an answer.
    fn stop_ids(&self) -> &[u32];

    /// Returns the id for text without a token; None for byte-level tokenizers.
    fn unknown_id(&self) -> Option<u32>;

    /// Returns the number of token ids, added tokens included.
    fn vocab_size(&self) -> usize;

    /// Runs `tasks` and returns an output for each, of the same kind and in the same order.
    ///
    /// # Errors
    ///
    /// Returns [`TaskFailed`] for the first task without an output.
    fn run(&self, tasks: &[TextTask]) -> Result<Vec<TextOutput>, TaskFailed>;
}

/// Engine that works in the calling process, within the template engine's limits on instructions
/// and output. Time and memory are not limited.
#[derive(Clone, Debug)]
pub struct InProcess {
    tokenizer: TextTokenizer,
    format: PromptFormat,
}

impl InProcess {
    /// Creates an engine whose answers end where `format` ends a turn, too.
    #[must_use]
    pub fn new(mut tokenizer: TextTokenizer, format: PromptFormat) -> Self {
        // A format that cannot encode this row says so when it encodes the user's.
        if let Ok(row) = format.encode_row(&tokenizer, &[Message::user("Hello.")], "Hello.")
            && let Some(end) = row.answer.last().filter(|end| tokenizer.is_special(**end))
        {
            tokenizer.stop_at(*end);
        }
        Self { tokenizer, format }
    }

    /// Size of the stack on which the work runs, in bytes. Only the used part takes memory.
    pub const STACK_BYTES: u64 = large_stack::STACK as u64;

    /// Runs every task of `tasks` and passes the outputs to `reply`, in the same order, until the
    /// tasks end or `reply` returns false. `begins` is called before each stage of a task.
    ///
    /// # Errors
    ///
    /// Returns an error if the template engine panics.
    pub fn serve(
        &self,
        tasks: impl Iterator<Item = TextTask> + Send,
        begins: &(dyn Fn(TextStage) + Sync),
        mut reply: impl FnMut(Result<TextOutput, PromptFormatError>) -> bool + Send,
    ) -> Result<(), PromptFormatError> {
        let work = || {
            let source = TemplateSource::new(self.format.text());
            let begin = |stage| begins(stage);
            let mut encoder = PromptEncoder::new((&self.format, &source), &self.tokenizer, &begin);
            for task in tasks {
                begins(TextStage::Tokenizer);
                if !reply(self.output(&mut encoder, task)) {
                    break;
                }
            }
        };
        large_stack::run(work).ok_or_else(PromptFormatError::engine_broken)
    }

    fn output(
        &self,
        encoder: &mut PromptEncoder<'_>,
        task: TextTask,
    ) -> Result<TextOutput, PromptFormatError> {
        Ok(match task {
            TextTask::Prompt(messages) => TextOutput::Prompt(encoder.prompt(&messages)?),
            TextTask::Row { messages, answer } => TextOutput::Row(encoder.row(&messages, &answer)?),
            TextTask::Decode(ids) => TextOutput::Text(self.tokenizer.decode(&ids)?),
            TextTask::Vocabulary => TextOutput::Vocabulary(Vocabulary {
                tokens: (0..self.vocab_size() as u32).map(|id| self.tokenizer.token(id)).collect(),
                text_ids: self.tokenizer.text_ids(),
            }),
        })
    }
}

impl TextEngine for InProcess {
    fn stop_ids(&self) -> &[u32] {
        self.tokenizer.stop_ids()
    }

    fn unknown_id(&self) -> Option<u32> {
        self.tokenizer.unknown_id()
    }

    fn vocab_size(&self) -> usize {
        self.tokenizer.vocab_size()
    }

    fn run(&self, tasks: &[TextTask]) -> Result<Vec<TextOutput>, TaskFailed> {
        let (mut outputs, mut failed) = (Vec::with_capacity(tasks.len()), None);
        let reply = |output| match output {
            Ok(output) => {
                outputs.push(output);
                true
            }
            Err(error) => {
                failed = Some(error);
                false
            }
        };
        let served = self.serve(tasks.iter().cloned(), &|_| (), reply);
        match failed.or(served.err()) {
            Some(error) => Err(TaskFailed { task: outputs.len(), error: error.into() }),
            None => Ok(outputs),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::text::tokenizer::testing::folder;

    fn engine(template: &str) -> InProcess {
        let config = json!({"bos_token": "<s>", "eos_token": "</s>"});
        let dir = folder(&["<unk>", "<s>", "</s>", "a", "b"], &["<s>", "</s>"], &config);
        let tokenizer = TextTokenizer::load(dir.path()).unwrap();
        InProcess::new(tokenizer, PromptFormat::ChatTemplate(template.to_owned()))
    }

    #[test]
    fn each_task_has_the_output_of_its_kind() {
        let engine = engine("{% for m in messages %}{{ m.content }} b {% endfor %}");
        let messages = vec![Message::user("a")];
        let tasks = [
            TextTask::Prompt(messages.clone()),
            TextTask::Row { messages, answer: "a a".to_owned() },
            TextTask::Decode(vec![1, 3, 4]),
            TextTask::Vocabulary,
        ];
        let outputs = engine.run(&tasks).unwrap();
        let (text, tokens) = ("a b ".to_owned(), vec![1, 3, 4]);
        let prompt = EncodedPrompt { text, tokens, user: (1, 2) };
        let tokens_of_words = ["<unk>", "<s>", "</s>", "a", "b"].map(|w| Some(w.to_owned()));
        let expected = [
            TextOutput::Prompt(prompt.clone()),
            TextOutput::Row(EncodedRow { prompt, answer: vec![3, 3, 2] }),
            TextOutput::Text("a b".to_owned()),
            TextOutput::Vocabulary(Vocabulary {
                tokens: tokens_of_words.to_vec(),
                text_ids: vec![0, 3, 4],
            }),
        ];
        assert_eq!(outputs, expected);
        assert_eq!((engine.stop_ids(), engine.vocab_size()), ([2].as_slice(), 5));
    }

    #[test]
    fn an_answer_ends_and_stops_where_the_template_ends_a_turn() {
        let template = "{% for m in messages %}{{ m.content }} <end> {% endfor %}b";
        let words = ["<unk>", "<s>", "</s>", "a", "b", "<end>"];
        let config = json!({"bos_token": "<s>", "eos_token": "</s>"});
        let dir = folder(&words, &["<s>", "</s>", "<end>"], &config);
        let tokenizer = TextTokenizer::load(dir.path()).unwrap();
        let engine = InProcess::new(tokenizer, PromptFormat::ChatTemplate(template.to_owned()));
        assert_eq!(engine.stop_ids(), [2, 5]);
        let task = TextTask::Row { messages: vec![Message::user("a")], answer: "b a".to_owned() };
        let output = engine.run(&[task]).unwrap().remove(0);
        let TextOutput::Row(row) = output else { panic!("{output:?}") };
        assert_eq!((row.prompt.tokens, row.answer), (vec![1, 3, 5], vec![4, 3, 5]));
    }

    #[test]
    fn the_first_task_that_fails_is_named() {
        let refuses = "{% if messages[0].content == 'b' %}{{ raise_exception('no b') }}{% endif %}{{ messages[0].content }}";
        let chat = |words: &str| TextTask::Prompt(vec![Message::user(words)]);
        let failed = engine(refuses).run(&[chat("a"), chat("b"), chat("a")]).unwrap_err();
        assert_eq!(failed.task, 1);
        assert!(failed.to_string().contains("no b"), "{failed}");
    }

    #[test]
    fn stages_are_told_before_they_begin() {
        use TextStage::{Template, Tokenizer};

        let stages = std::sync::Mutex::new(Vec::new());
        let begins = |stage| stages.lock().unwrap().push(stage);
        let tasks = [TextTask::Prompt(vec![Message::user("a")]), TextTask::Decode(vec![3])];
        engine("{{ messages[0].content }}").serve(tasks.into_iter(), &begins, |_| true).unwrap();
        let Ok(stages) = stages.into_inner() else { unreachable!("nothing panics") };
        // The template is rendered a second time to find the user's words.
        assert_eq!(stages, [Tokenizer, Template, Template, Tokenizer, Tokenizer]);
    }
}
