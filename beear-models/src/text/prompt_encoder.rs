//! Encoding of texts with a prompt format, and location of the user's words among the tokens.

use std::ops::Range;

use crate::text::chat::{Message, Renderer, TemplateSource};
use crate::text::large_stack;
use crate::text::prompt_format::{
    EncodedPrompt, EncodedRow, PLACEHOLDER, PromptFormat, PromptFormatError,
};
use crate::text::text_stage::TextStage;
use crate::text::tokenizer::{ByteRange, TextTokenizer};

/// Placeholder for locating the user's text; private-use characters, so that no template contains
/// it.
const PROBE: &str = "\u{f8f0}probe\u{f8f1}";

impl PromptFormat {
    /// Encodes one request, up to the start of the answer.
    ///
    /// # Errors
    ///
    /// Returns [`PromptFormatError`] if the template refuses the text or the text cannot be found.
    pub fn encode(
        &self,
        tokenizer: &TextTokenizer,
        prompt: &str,
        system: Option<&str>,
    ) -> Result<EncodedPrompt, PromptFormatError> {
        let system = system.map(Message::system);
        let messages: Vec<_> = system.into_iter().chain([Message::user(prompt)]).collect();
        self.encode_chat(tokenizer, &messages)
    }

    /// Encodes a conversation, up to the start of the next answer.
    ///
    /// A pattern describes one turn; every later turn is formatted like the first, after the
    /// previous answer.
    ///
    /// # Errors
    ///
    /// Returns [`PromptFormatError`] if the last turn is not the user's, or the template refuses
    /// the conversation.
    pub fn encode_chat(
        &self,
        tokenizer: &TextTokenizer,
        messages: &[Message],
    ) -> Result<EncodedPrompt, PromptFormatError> {
        PromptEncoder::with(self, tokenizer, |encoder| encoder.prompt(messages))
    }

    /// Encodes a conversation with its answer.
    ///
    /// A chat template renders both together, and the tokens of the answer are cut from those of
    /// the whole: a token that the end of the prompt shares with the answer is the answer's. The
    /// answer ends with the first special token after its text, or with the end of sequence where
    /// the template writes none. The prompt can differ from that of [`encode_chat`](Self::encode_chat)
    /// where the template writes something before a new answer alone, such as `<think>`. A pattern, and a
    /// template that does not show answers, have the answer encoded apart.
    ///
    /// # Errors
    ///
    /// Returns [`PromptFormatError`] as [`encode_chat`](Self::encode_chat).
    pub fn encode_row(
        &self,
        tokenizer: &TextTokenizer,
        messages: &[Message],
        answer: &str,
    ) -> Result<EncodedRow, PromptFormatError> {
        PromptEncoder::with(self, tokenizer, |encoder| encoder.row(messages, answer))
    }

    /// Encodes an answer apart from any conversation, with exactly one end of sequence if the model
    /// has one.
    ///
    /// # Errors
    ///
    /// Returns [`PromptFormatError::Tokenizer`] if the tokenizer fails.
    pub fn encode_answer(
        &self,
        tokenizer: &TextTokenizer,
        answer: &str,
    ) -> Result<Vec<u32>, PromptFormatError> {
        PromptEncoder::with(self, tokenizer, |encoder| encoder.answer(answer))
    }
}

/// Encoder of many texts: the template is compiled once, and rendered once to locate the user's
/// text.
pub(crate) struct PromptEncoder<'a> {
    format: &'a PromptFormat,
    tokenizer: &'a TextTokenizer,
    renderer: Renderer<'a>,
    /// Last rendering of the probe, with the messages before it: rows of a set mostly share theirs.
    probed: Option<(Vec<Message>, String)>,
    /// Callback at the start of each stage.
    begins: &'a dyn Fn(TextStage),
}

impl<'a> PromptEncoder<'a> {
    pub(crate) fn new(
        (format, source): (&'a PromptFormat, &'a TemplateSource),
        tokenizer: &'a TextTokenizer,
        begins: &'a dyn Fn(TextStage),
    ) -> Self {
        Self { format, tokenizer, renderer: Renderer::new(source), probed: None, begins }
    }

    /// Calls `encode` with a new encoder, on a large stack.
    ///
    /// # Errors
    ///
    /// Returns the errors of `encode`, and an error if it panics.
    pub(crate) fn with<T: Send>(
        format: &PromptFormat,
        tokenizer: &TextTokenizer,
        encode: impl FnOnce(&mut PromptEncoder<'_>) -> Result<T, PromptFormatError> + Send,
    ) -> Result<T, PromptFormatError> {
        let encode = || {
            let source = TemplateSource::new(format.text());
            encode(&mut PromptEncoder::new((format, &source), tokenizer, &|_| ()))
        };
        large_stack::run(encode).unwrap_or_else(|| Err(PromptFormatError::engine_broken()))
    }

    /// Encodes a conversation, see [`PromptFormat::encode_chat`].
    pub(crate) fn prompt(
        &mut self,
        messages: &[Message],
    ) -> Result<EncodedPrompt, PromptFormatError> {
        let (last, before) = last_of_user(messages)?;
        let PromptFormat::Pattern(pattern) = self.format else {
            let text = self.render(messages, true)?;
            let said = self.locate(&text, last, before)?;
            let (tokens, offsets) = self.encode(&text)?;
            return Ok(self.located(text, tokens, &offsets, &said));
        };
        let (mut text, mut tokens, mut user, mut system) = (String::new(), Vec::new(), 0..0, None);
        for Message { role, content } in messages {
            match role.as_str() {
                "system" => system = Some(content.as_str()),
                "user" => {
                    let (before, after) = pattern.split_once(PLACEHOLDER).unwrap_or((pattern, ""));
                    let system = system.take().map(|system| format!("{system}\n\n"));
                    let before = format!("{before}{}", system.unwrap_or_default());
                    let turn = format!("{before}{content}{after}");
                    let (turn_tokens, offsets) = self.encode(&turn)?;
                    let start = before.len() + content.len() - content.trim_start().len();
                    let said = start..start + content.trim().len();
                    let span = tokens_within(&offsets, &said);
                    user = span.start + tokens.len()..span.end + tokens.len();
                    text.push_str(&turn);
                    tokens.extend(turn_tokens);
                }
                _ => {
                    text.push_str(content);
                    text.push_str(&self.tokenizer.eos);
                    tokens.extend(self.answer(content)?);
                }
            }
        }
        Ok(self.begun(text, tokens, user))
    }

    /// Encodes a conversation with its answer, see [`PromptFormat::encode_row`].
    pub(crate) fn row(
        &mut self,
        messages: &[Message],
        answer: &str,
    ) -> Result<EncodedRow, PromptFormatError> {
        last_of_user(messages)?;
        if let Some(row) = self.row_of_template(messages, answer)? {
            return Ok(row);
        }
        Ok(EncodedRow { prompt: self.prompt(messages)?, answer: self.answer(answer)? })
    }

    /// Encodes a row by rendering all of it; None if the format does not show the answer.
    fn row_of_template(
        &mut self,
        messages: &[Message],
        answer: &str,
    ) -> Result<Option<EncodedRow>, PromptFormatError> {
        let said = answer.trim();
        if said.is_empty() || matches!(self.format, PromptFormat::Pattern(_)) {
            return Ok(None);
        }
        let with = |answer: &str| [messages, &[Message::assistant(answer)]].concat();
        // Templates may refuse a conversation that ends with an answer.
        let (Ok(text), Ok(probed)) =
            (self.render(&with(answer), false), self.render(&with(PROBE), false))
        else {
            return Ok(None);
        };
        let Some(said) = range_of(&text, said, &probed) else { return Ok(None) };
        let (last, before) = last_of_user(messages)?;
        let of_user = [before, &[Message::user(PROBE), Message::assistant(answer)]].concat();
        let probed = self.render(&of_user, false)?;
        let user = range_of(&text, last.trim(), &probed)
            .filter(|user| user.end <= said.start)
            .ok_or(PromptFormatError::UserTextLost)?;
        let (mut tokens, offsets) = self.encode(&text)?;
        let n_prompt = offsets.iter().take_while(|(_, to)| *to <= said.start).count();
        let n_said = offsets.iter().rposition(|(from, _)| *from < said.end).map_or(0, |k| k + 1);
        let end = (n_said..tokens.len()).find(|k| self.tokenizer.is_special(tokens[*k]));
        let mut answer = tokens[n_prompt..end.map_or(n_said, |end| end + 1)].to_vec();
        if end.is_none() {
            self.end_once(&mut answer);
        }
        tokens.truncate(n_prompt);
        let prompt = text[..said.start].to_owned();
        let prompt = self.located(prompt, tokens, &offsets[..n_prompt], &user);
        Ok(Some(EncodedRow { prompt, answer }))
    }

    /// Encodes an answer, see [`PromptFormat::encode_answer`].
    pub(crate) fn answer(&mut self, answer: &str) -> Result<Vec<u32>, PromptFormatError> {
        let (mut tokens, _) = self.encode(answer)?;
        self.end_once(&mut tokens);
        Ok(tokens)
    }

    /// Gives `answer` exactly one end of sequence, if the model has one.
    fn end_once(&self, answer: &mut Vec<u32>) {
        if let Some(eos) = self.tokenizer.id(&self.tokenizer.eos) {
            while answer.last() == Some(&eos) {
                answer.pop();
            }
            answer.push(eos);
        }
    }

    /// Returns the byte range of the last user turn's words in `text`, without surrounding white
    /// space.
    fn locate(
        &mut self,
        text: &str,
        said: &str,
        before: &[Message],
    ) -> Result<Range<usize>, PromptFormatError> {
        let is_probed = self.probed.as_ref().is_some_and(|(messages, _)| messages == before);
        if !is_probed {
            let rendered = self.render(&[before, &[Message::user(PROBE)]].concat(), true)?;
            self.probed = Some((before.to_vec(), rendered));
        }
        let probed = self.probed.as_ref().map_or("", |(_, rendered)| rendered);
        range_of(text, said.trim(), probed).ok_or(PromptFormatError::UserTextLost)
    }

    /// Builds a prompt whose user's words are the bytes `said` of `text`.
    fn located(
        &self,
        text: String,
        tokens: Vec<u32>,
        offsets: &[ByteRange],
        said: &Range<usize>,
    ) -> EncodedPrompt {
        self.begun(text, tokens, tokens_within(offsets, said))
    }

    /// Builds a prompt that begins as the tokenizer begins texts.
    fn begun(&self, text: String, mut tokens: Vec<u32>, user: Range<usize>) -> EncodedPrompt {
        let moved = begin_once(&mut tokens, self.tokenizer);
        let user = (user.start.saturating_add_signed(moved), user.end.saturating_add_signed(moved));
        EncodedPrompt { text, tokens, user }
    }

    fn render(&self, messages: &[Message], is_prompt: bool) -> Result<String, PromptFormatError> {
        (self.begins)(TextStage::Template);
        let special = [self.tokenizer.bos.as_str(), self.tokenizer.eos.as_str()];
        let rendered = self.renderer.render(messages, special, is_prompt);
        rendered.map_err(|reason| PromptFormatError::Template { reason })
    }

    fn encode(&self, text: &str) -> Result<(Vec<u32>, Vec<ByteRange>), PromptFormatError> {
        (self.begins)(TextStage::Tokenizer);
        Ok(self.tokenizer.encode(text)?)
    }
}

/// Returns the last message's text, which must be the user's, and the messages before it.
fn last_of_user(messages: &[Message]) -> Result<(&str, &[Message]), PromptFormatError> {
    match messages.split_last() {
        Some((last, before)) if last.role == "user" => Ok((&last.content, before)),
        _ => {
            let reason = "the last turn is not the user's".to_owned();
            Err(PromptFormatError::Template { reason })
        }
    }
}

/// Returns the byte range of `said` in `text`; `probed` is the same text with the probe in its
/// place.
///
/// Searching for the words alone would find `A` in `ASSISTANT:`, so the text is compared with the
/// rendering of the probe.
fn range_of(text: &str, said: &str, probed: &str) -> Option<Range<usize>> {
    let (before, after) = probed.rsplit_once(PROBE)?;
    let body = text.strip_suffix(after).unwrap_or(text);
    let inner = body.strip_prefix(before).filter(|inner| inner.trim() == said);
    let start = match inner {
        Some(inner) => before.len() + inner.len() - inner.trim_start().len(),
        // The rendering around a text may depend on the text.
        None => body.rfind(said)?,
    };
    Some(start..start + said.len())
}

/// Returns the range of the tokens that share a byte with `said`; empty, and at its place, if none
/// does.
fn tokens_within(offsets: &[ByteRange], said: &Range<usize>) -> Range<usize> {
    let inside = |&(from, to): &ByteRange| from < said.end && to > said.start;
    let before = offsets.iter().take_while(|(_, to)| *to <= said.start).count();
    let first = offsets.iter().position(inside).unwrap_or(before);
    first..offsets.iter().rposition(inside).map_or(first, |last| last + 1)
}

/// Gives `tokens` one beginning of sequence if the tokenizer begins texts with one, keeps that of
/// the text otherwise, and returns the shift of all other tokens. A template that writes the token
/// and a tokenizer that adds one make one together.
fn begin_once(tokens: &mut Vec<u32>, tokenizer: &TextTokenizer) -> isize {
    let Some(bos) = tokenizer.id(&tokenizer.bos) else { return 0 };
    match tokens.iter().take_while(|token| **token == bos).count() {
        0 if tokenizer.adds_bos() => {
            tokens.insert(0, bos);
            1
        }
        0 => 0,
        doubled => {
            tokens.drain(1..doubled);
            1 - doubled as isize
        }
    }
}
